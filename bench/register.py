"""What a long register costs: listing, appending, checking; and lists of deployments, with many and with few."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from tests.fakes.notary import FakeNotary
from tests.fakes.source import FakeSource

import report
from branchline.domain.access import EVERYWHERE, Actor, Permission, Role
from branchline.domain.audit import AuditEvent, Kind, Wanted
from branchline.domain.chain import Head, statement
from branchline.endpoints import Endpoints
from branchline.operations.gate import Gate
from branchline.operations.register import Audit
from branchline.operations.requests import Deployments
from branchline.operations.sealing import Sealing
from branchline.operations.tokens import Tokens
from branchline.operations.views import Views
from branchline.settings import Settings
from branchline.stack import first_start
from branchline.stack.part import running
from branchline.stack.postgres import PLATFORM_DATABASE, Cluster, Postgres
from branchline.store.database import SqlStore, connect, without_limit
from branchline.store.schema import exclusively, migrate
from branchline.wire_people import NewToken

FEW, MANY = 1_000, 1_000_000
PER_DEPLOYMENT = 10
SEAL_EACH = 50
"""Rows between two seals: every fifth deployment ends while no other does."""
SAMPLES = 300
PROJECTS = 50
ADMIN = Actor("ada", "token ada", {EVERYWHERE: Role.ADMIN})

EVENTS = f"""
    INSERT INTO register.incoming (kind, actor, proof, source, project, environment, deployment, detail)
    SELECT (array['deployment.requested', 'deployment.started', 'stage.ended', 'stage.ended', 'stage.ended',
        'stage.ended',
        'stage.ended', 'deployment.switched', 'stage.ended', 'deployment.finished'])[1 + n %% 10],
        CASE WHEN n %% 10 = 0 THEN (array['ada', 'bob', 'carol', 'ci', 'dan'])[1 + d %% 5] ELSE 'platform' END,
        CASE WHEN n %% 10 = 0 THEN 'token laptop ' || d %% 50 ELSE '' END, '10.0.' || d %% 7 || '.' || d %% 250,
        'project' || 1 + d %% {PROJECTS}, (array['develop', 'staging', 'production'])[1 + d / {PROJECTS} %% 3], d,
        jsonb_build_object('ref', 'refs/heads/branch-' || d, 'commit', md5(d::text), 'stage', 'build',
                           'seconds', n %% 100 / 10.0)
    FROM (SELECT n, n / {PER_DEPLOYMENT} + 1 AS d FROM generate_series(%s::bigint, %s::bigint - 1) n) counted
"""

DEPLOYMENTS = f"""
    INSERT INTO deployment (environment_id, ref, commit, state, actor, trigger, requested_at, started_at, finished_at,
        release_id)
    SELECT 1 + d %% {3 * PROJECTS}, 'refs/heads/branch-' || d, md5(d::text), 'succeeded', 'ada', 'cli', now(), now(),
        now(), 1 + d %% {3 * PROJECTS} %% {PROJECTS}
    FROM generate_series(%s::bigint, %s::bigint - 1) d
"""


def main() -> None:
    """Start two PostgreSQLs of our own as the platform does, fill one with few and one with many, write the results."""
    with ExitStack() as servers:
        few, many = (servers.enter_context(database()) for _ in range(2))
        few.fill(FEW)
        began = time.perf_counter()
        many.fill(MANY)
        print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
        for _ in range(SAMPLES):  # in turn, so that whatever else the machine does hits both alike
            few.sample()
            many.sample()
        Sealing(many.store, many.notary, 60).seal()
        many.seal_often()
        began = time.perf_counter()
        *_, verdict = many.audit.verify(ADMIN)
        took = time.perf_counter() - began
        assert verdict.done
        assert verdict.done.faults == []
        assert verdict.done.rows >= MANY
        small, large = few.p95(), many.p95()
        figures = {f"{name}_p95_ms_1k": one for name, one in small.items()}
        figures |= {f"{name}_p95_ms_1m": one for name, one in large.items()}
        figures |= {"verify_events_per_s": verdict.done.rows / took, "verify_seals": verdict.done.seals}
        figures["authorise_ms"] = report.percentile(many.authorised(), 95)
        report.write("register", figures, {f"ratio_{name}_1m_to_1k": large[name] / small[name] for name in small})


@contextmanager
def database() -> Iterator[Bench]:
    """A cluster with the platform's tables."""
    home = Path(tempfile.mkdtemp(prefix="bl-bench-"))
    try:
        layout = first_start.establish(home)
        part = Postgres(layout, Cluster.PLATFORM, first_start.account())
        with running(part, layout.log):
            engine = connect(Endpoints(Settings(home=home), layout).platform_database)
            with exclusively(engine):
                migrate(engine)
            with psycopg.connect(part.admin_url(PLATFORM_DATABASE).reveal(), autocommit=True) as superuser:
                yield Bench(SqlStore(engine), superuser)
            engine.dispose()
    finally:
        shutil.rmtree(home)


class Bench:
    """What the server does, on one database."""

    def __init__(self, store: SqlStore, superuser: psycopg.Connection) -> None:
        self.store = store
        self.superuser = superuser
        self.notary = FakeNotary()
        self.gate = Gate(store)
        self.audit = Audit(store, self.gate, self.notary)
        self.views = Views(lambda name: f"https://{name}")
        self.deployments = Deployments(store, self.gate, self.views, FakeSource(), "localhost")
        self.random = random.Random(7)
        self.samples: dict[str, list[float]] = {}
        self.top = 0

    def found(self) -> None:
        """Projects, environments, a release each."""
        for statement_ in (
            f"INSERT INTO project (name, repository) SELECT 'project' || n, '/' FROM generate_series(1, {PROJECTS}) n",
            "INSERT INTO environment (project_id, name, tier, slot) SELECT p.id, e, 'nonprod', row_number() OVER ()"
            " FROM project p, unnest(array['develop', 'staging', 'production']) e",
            "INSERT INTO hostname SELECT 'host-' || id, id FROM environment",
            "INSERT INTO release (project_id, number, commit, build_key, image, manifest)"
            ' SELECT id, 1, \'c\', \'k\', \'i\', \'{"project": "p", "services": {"web": {"command": "run"}}}\''
            " FROM project",
        ):
            self.superuser.execute(statement_)

    def fill(self, count: int) -> None:
        """Events, by the way that all take, and deployments."""
        self.found()
        with self.store.engine.connect() as session:
            without_limit(session)
            for begin in range(0, count, 20_000):
                session.exec_driver_sql(EVENTS, (begin, min(begin + 20_000, count)))
                session.commit()
        self.superuser.execute(DEPLOYMENTS, (0, count // PER_DEPLOYMENT))
        self.superuser.execute("VACUUM ANALYZE")
        (self.top,) = self.superuser.execute("SELECT max(seq) FROM register.event").fetchone()
        for _ in range(20):
            self.audit.list(ADMIN, Wanted(), None, 50)

    def seal_often(self) -> None:
        """Seals as they come to be over time."""
        at = datetime.now(UTC)
        rows = self.superuser.execute(
            "SELECT seq, hash FROM register.event WHERE seq %% %s = 0 ORDER BY seq", (SEAL_EACH,)
        )
        with self.superuser.cursor().copy(
            "COPY register.seal (seq, hash, at, key_version, signature) FROM STDIN"
        ) as copy:
            for seq, hashed in rows.fetchall():
                version, signature = self.notary.sign(statement(Head(seq, hashed), at))
                copy.write_row((seq, hashed, at, version, signature))

    def wanted(self) -> dict[str, Callable[[], Wanted]]:
        """Every filter, for something else each time."""
        pick = self.random.randrange
        now = datetime.now(UTC)
        return {
            "all": Wanted,
            "project": lambda: Wanted(project=f"project{1 + pick(PROJECTS)}"),
            "environment": lambda: Wanted(environment=("develop", "staging")[pick(2)]),
            "both": lambda: Wanted(project=f"project{1 + pick(PROJECTS)}", environment="production"),
            "actor": lambda: Wanted(actor=("ada", "bob", "carol")[pick(3)]),
            "kind": lambda: Wanted(kind=("deployment.finished", "stage.ended")[pick(2)]),
            "all_four": lambda: Wanted(f"project{1 + pick(PROJECTS)}", "develop", "platform", "deployment.finished"),
            "none": lambda: Wanted(actor="nobody"),
            "time": lambda: Wanted(since=now - timedelta(days=1), until=now - timedelta(seconds=pick(60))),
            "text": lambda: Wanted(text=f"branch-{pick(100)}"),
        }

    def sample(self) -> None:
        """Do everything once."""
        for name, make in self.wanted().items():
            wanted = make()
            before = self.random.randrange(2, self.top + 2) if self.random.random() < 0.5 else None
            took = timed(lambda wanted=wanted, before=before: self.audit.list(ADMIN, wanted, before, 50))
            self.note(f"list_{name}", took)
            if name != "text":  # which no index leads to: told by itself
                self.note("list", took)
        self.note("append", timed(self.append))
        # Of all projects: with few there would be fewer than fifty in each.
        self.note("deployments", timed(lambda: self.deployments.list(ADMIN, None, None, None, 50)))
        project = f"project{1 + self.random.randrange(PROJECTS)}"
        self.note("env_show", timed(lambda: self.env_show(project)))

    def note(self, name: str, took: float) -> None:
        """Keep a sample."""
        self.samples.setdefault(name, []).append(took)

    def p95(self) -> dict[str, float]:
        """The 95th percentiles, in milliseconds."""
        return {name: report.percentile(times, 95) for name, times in self.samples.items()}

    def env_show(self, project: str) -> None:
        """What `env show` asks of the store."""
        with self.store.transaction() as records:
            self.views.environment(records, records.environments.get(project, "develop"))

    def append(self) -> None:
        """One event in a transaction of its own, until it is on the disk."""
        with self.store.transaction() as records:
            detail = {"ref": "refs/heads/develop", "commit": "4f1d9c2e" * 5}
            records.register.add(
                AuditEvent(Kind.DEPLOYMENT_REQUESTED, "ada", "project1", "develop", 1, detail, "token", "::1")
            )

    def authorised(self) -> list[float]:
        """Milliseconds that it takes to know who asks, and that they may."""
        tokens = Tokens(self.store, self.gate)
        token = tokens.create(ADMIN, NewToken(name="bench", role=Role.DEVELOPER)).token

        def once() -> None:
            self.gate.require(tokens.authenticate(token), Permission.DEPLOY, project="project1")

        for _ in range(20):
            once()
        return [timed(once) for _ in range(SAMPLES)]


def timed(call: Callable[[], object]) -> float:
    """Milliseconds that one call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
