"""What the register holds of a deployment, whatever becomes of it and of who carries it; on the fake and PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import Kind, Recorded, Wanted
from branchline.domain.config import Secret
from branchline.domain.deployment import Deployment, State, Trigger
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke, Refused
from branchline.domain.manifest import HealthCheck
from branchline.operations import claims
from branchline.operations.gate import Gate
from branchline.operations.requests import Deployments
from branchline.operations.views import Views
from branchline.ports import Instance
from branchline.records import Records, Store
from branchline.stack.postgres import Postgres
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate
from branchline.store.tables import metadata
from branchline.wire import DeploymentView
from tests.fakes.containers import Call
from tests.fakes.store import MemoryStore
from tests.unit.test_deploy import MANIFEST, Killed, World, fails

ADA = Actor("ada", "token laptop", {EVERYWHERE: Role.DEVELOPER}, source="10.0.0.7")
BOB = Actor("bob", "token desk", {EVERYWHERE: Role.DEVELOPER}, source="10.0.0.8")
EVE = Actor("eve", "token guest", {EVERYWHERE: Role.VIEWER})

QUICK = MANIFEST.replace("window: 0.3s", "window: 0s")
SICK_AT_ONCE = MANIFEST.replace("failures: 2", "failures: 1")
BEGUN = ["deployment.requested by ada", "deployment.started by platform"]
BUILT = ["checkout passed", "build passed"]
UP = [*BUILT, "test passed", "publish passed", "prepare passed", "release passed", "start passed"]
SWITCHED = [*UP, "verify passed", "deployment.switched by platform", "switch passed"]
LIVE = [*SWITCHED, "watch passed", "drain passed", "deployment.finished by platform: succeeded"]


@pytest.fixture(scope="module")
def database(postgres_platform: Postgres) -> Iterator[SqlStore]:
    """A database of its own: whoever claims takes whatever waits."""
    name = f"lines{os.getpid()}"
    admin = connect(postgres_platform.admin_url())
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.execute(sa.text(f"CREATE DATABASE {name}"))
        url = sa.make_url(postgres_platform.admin_url().reveal()).set(database=name)
        engine = connect(Secret(url.render_as_string(hide_password=False)))
        with exclusively(engine):
            migrate(engine)
        try:
            yield SqlStore(engine)
        finally:
            engine.dispose()
            session.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> MemoryStore | SqlStore:
    if request.param == "fake":
        return MemoryStore()
    found: SqlStore = request.getfixturevalue("database")
    with found.engine.begin() as connection:
        everything = ", ".join(table.fullname for table in metadata.sorted_tables)
        connection.execute(sa.text(f"TRUNCATE {everything} RESTART IDENTITY CASCADE"))
    return found


@pytest.fixture
def world(tmp_path: Path, store: MemoryStore | SqlStore) -> World:
    return World(tmp_path, store)


def people(world: World, store: Store | None = None) -> Deployments:
    """What people do with deployments."""
    there = store or world.store
    return Deployments(there, Gate(there), Views(lambda name: f"http://{name}"), world.source, "test")


def asks(world: World, actor: Actor = ADA, manifest: str = QUICK, **files: str) -> DeploymentView:
    """Push a commit and ask for it."""
    pushed = {"branchline.yaml": manifest, "Dockerfile": "FROM scratch\n", **files}
    world.repository.commit("develop", pushed, subject="Add the till")
    return people(world).request(actor, "shop", "develop", None, Trigger.CLI, "it is slow")


def carries(world: World, store: Store | None = None, runner: str = "runner-1") -> Deployment | None:
    """A runner takes the next deployment and brings it to its end."""
    claimed = claims.claim(store or world.store, Tier.NONPROD, runner)
    if claimed is not None:
        world.runner().run(claimed)
    return claimed


def events(world: World, number: int) -> list[Recorded]:
    """What the register says of a deployment, oldest first."""
    with world.store.transaction() as records:
        page = records.register.page(Wanted("shop"), None, 1000).items
    return [event for event in reversed(page) if event.deployment == number]


def lines(world: World, number: int) -> list[str]:
    """The same in words: a stage and what came of it, or what happened to the deployment and by whom."""
    return [word(event) for event in events(world, number)]


def word(event: Recorded) -> str:
    if event.kind is Kind.STAGE_ENDED:
        return f"{event.detail['stage']} {event.detail['state']}"
    state = f": {event.detail['state']}" if event.kind is Kind.DEPLOYMENT_FINISHED else ""
    return f"{event.kind} by {event.actor}{state}"


def cancels_while_it_is_tested(world: World) -> None:
    def check(call: Call) -> int:
        people(world).cancel(BOB, int(call.variables["BRANCHLINE_DEPLOYMENT"]))
        call.sleep(30)
        return 0

    world.containers.programs["check"] = check


def turns_sick(world: World) -> None:
    """Whatever gets traffic from now on is not well."""
    well, probe = world.serving(), world.probes.probe

    def sick_where_it_has_traffic(instance: Instance, check: HealthCheck) -> tuple[bool, str]:
        if instance.service == "web" and instance.deployment in world.serving() - well:
            return False, "HTTP 503"
        return probe(instance, check)

    world.probes.probe = sick_where_it_has_traffic


def loses_its_runner(world: World) -> None:
    """The runner dies before it migrates, and another goes on."""
    run = world.containers.run

    def die(place: Any, kind: str, *words: Any) -> int:
        if kind == "release":
            world.containers.run = run
            raise Killed
        return run(place, kind, *words)

    world.containers.run = die


@dataclass(frozen=True)
class Case:
    """What happens to a deployment while another is live, and what the register then says of it."""

    lines: list[str]
    happens: Callable[[World], object] = lambda _world: None
    state: State = State.SUCCEEDED
    outcome: str = ""
    code: str = ""


CASES = {
    "success": Case([*BEGUN, *LIVE], outcome="Live since "),
    "failed test": Case(
        [*BEGUN, *BUILT, "test failed", "undo passed", "deployment.finished by platform: failed"],
        lambda world: world.containers.programs.update(check=fails("2 failed")),
        State.FAILED,
        "Failed in test: The tests failed with exit status 1: 2 failed",
        "tests_failed",
    ),
    "failed verify": Case(
        [*BEGUN, *UP, "verify failed", "undo passed", "deployment.finished by platform: failed"],
        lambda world: world.probes.answer("web", (False, "HTTP 500")),
        State.FAILED,
        "Failed in verify: ",
        "unhealthy",
    ),
    "undone": Case(
        [
            *[*BEGUN, *SWITCHED, "watch failed", "deployment.undone by platform", "undo passed"],
            "deployment.finished by platform: undone",
        ],
        turns_sick,
        State.UNDONE,
        "Undone ",
        "sick_after_switch",
    ),
    "cancelled while it runs": Case(
        [
            *[*BEGUN, *BUILT, "deployment.cancel_asked by bob", "test failed", "undo passed"],
            "deployment.finished by platform: cancelled",
        ],
        cancels_while_it_is_tested,
        State.CANCELLED,
        "Cancelled by bob in test.",
        "cancelled",
    ),
    "taken over": Case(
        [
            *[*BEGUN, *UP[: UP.index("release passed")], "deployment.taken_over by platform"],
            *LIVE[LIVE.index("release passed") :],
        ],
        loses_its_runner,
        outcome="Live since ",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_lines_of_a_deployment_that_began(world: World, name: str) -> None:
    case = CASES[name]
    asks(world)
    carries(world)
    number = asks(world, manifest=MANIFEST).id
    case.happens(world)
    try:
        carries(world)
    except Killed:
        taken = claims.take_over(world.store, number, "runner-2", "runner-1")
        assert taken
        world.runner("runner-2").run(taken)
    assert lines(world, number) == case.lines
    shown = people(world).show(EVE, number)
    assert (shown.state, shown.failure.code if shown.failure else "") == (case.state, case.code)
    assert shown.outcome.startswith(case.outcome), shown.outcome
    assert world.faults == []


def test_the_lines_of_one_that_is_cancelled_while_it_waits(world: World) -> None:
    number = asks(world).id
    people(world).cancel(BOB, number)
    assert lines(world, number) == [
        "deployment.requested by ada",
        "deployment.cancel_asked by bob",
        "deployment.finished by platform: cancelled",
    ]
    cancelled = events(world, number)[1]
    assert (cancelled.proof, cancelled.source, cancelled.detail["for"]) == ("token desk", "10.0.0.8", "ada")
    ended = events(world, number)[-1].detail
    assert (ended["for"], ended["cancelled_by"], ended["failure"]["code"]) == ("ada", "bob", "cancelled")
    assert people(world).show(EVE, number).outcome == "Cancelled by bob before it began."
    assert carries(world) is None


def test_the_lines_of_one_that_is_superseded(world: World) -> None:
    older, newer = asks(world).id, asks(world, BOB).id
    assert lines(world, older) == ["deployment.requested by ada", "deployment.superseded by platform"]
    detail = events(world, older)[-1].detail
    assert (detail["for"], detail["by"], detail["by_actor"]) == ("ada", newer, "bob")
    assert people(world).show(EVE, older).outcome == f"Superseded by {newer}, a newer one, before it began."
    assert lines(world, newer) == ["deployment.requested by bob"]


def test_the_line_of_one_that_is_refused_says_what_was_asked_for(world: World) -> None:
    with pytest.raises(Refused):
        asks(world, EVE)
    number = asks(world).id
    with pytest.raises(Refused):
        people(world).cancel(EVE, number)
    with world.store.transaction() as records:
        cancelling, _, asking = records.register.page(Wanted("shop"), None, 3).items
    commit = world.repository.branches["develop"]
    assert (asking.kind, asking.actor, asking.environment) == (Kind.ACCESS_REFUSED, "eve", "develop")
    what = {"ref": "refs/heads/develop", "trigger": "cli", "reason": "it is slow"}
    assert asking.detail.items() >= what.items()
    assert asking.detail["commit"] != commit
    assert (cancelling.kind, cancelling.actor, cancelling.deployment) == (Kind.ACCESS_REFUSED, "eve", number)
    assert cancelling.detail.items() >= {**what, "commit": commit}.items()


def test_each_line_says_whom_it_was_for_what_it_is_and_why(world: World) -> None:
    world.configs.put("shop", "develop", {"DSN": "one", "OLD": "two", "SAME": "three"})
    first = asks(world).id
    carries(world)
    world.configs.put("shop", "develop", {"DSN": "a-very-secret-value", "API_KEY": "another-secret-value", "OLD": None})
    asked = asks(world, **{"shop/migrations/0002_till.py": "migrate"})
    carries(world)
    requested, *rest = events(world, asked.id)
    what = {"ref": "refs/heads/develop", "commit": asked.commit, "trigger": "cli", "reason": "it is slow"}
    assert (requested.actor, requested.detail) == ("ada", {**what, "subject": "Add the till"})
    assert (requested.proof, requested.source) == ("token laptop", "10.0.0.7")
    for event in rest:
        assert event.actor == "platform"
        assert event.detail.items() >= {**what, "for": "ada"}.items(), event
    release = {"release": 2, "image": people(world).show(EVE, asked.id).image}
    assert "@sha256:" in str(release["image"])
    published = [word(event) for event in rest].index("publish passed")
    for event in rest[published:]:
        assert event.detail.items() >= release.items(), event
    config = {"config": {"shop/_common": 0, "shop/env/develop": 2}}
    for event in rest[published + 1 :]:
        assert event.detail.items() >= config.items(), event
    changed = {
        "since": first,
        "commits": 1,
        "commits_back": 0,
        "keys": ["API_KEY", "DSN", "OLD"],
        "migrations": {"shop/migrations/0002_till.py": "added"},
    }
    telling = [event for event in rest if "keys" in event.detail]
    assert [word(event) for event in telling] == [
        "prepare passed",
        "deployment.switched by platform",
        "deployment.finished by platform: succeeded",
    ]
    for event in telling:
        assert event.detail.items() >= changed.items(), event
    started, ended = rest[0].detail, rest[-1].detail
    assert (started["runner"], started["waited"] >= 0) == ("runner-1", True)
    assert (ended["state"], ended["stage"], ended["failure"], ended["seconds"] > 0) == ("succeeded", None, None, True)
    stages = [event.detail for event in rest if event.kind is Kind.STAGE_ENDED]
    assert all(one["seconds"] >= 0 and one["attempts"] == 1 and one["failure"] is None for one in stages)
    assert "secret-value" not in str(events(world, asked.id))


def test_a_failure_is_in_the_register_as_code_and_sentence(world: World) -> None:
    world.containers.programs["check"] = fails("2 failed")
    number = asks(world).id
    carries(world)
    told = [event.detail for event in events(world, number) if event.detail.get("failure")]
    assert [one["stage"] for one in told] == ["test", "test"], "the line of the stage, and that of the deployment"
    for one in told:
        assert one["failure"]["code"] == "tests_failed"
        assert one["failure"]["sentence"] == "The tests failed with exit status 1: 2 failed"
        assert one["failure"]["hint"]


def test_what_is_deployed_again_says_so(world: World) -> None:
    live = asks(world).id
    carries(world)
    again = people(world).apply_config(BOB, "shop", "develop", Trigger.CLI, "new keys")
    assert events(world, again.id)[0].detail["again"] == live
    carries(world)
    shown = people(world).show(EVE, again.id)
    assert shown.changes
    assert (shown.changes.since, shown.changes.came.total, shown.changes.config) == (live, 0, [])
    replaced = people(world).show(EVE, live)
    assert (replaced.replaced_by, replaced.outcome.split(" after ")[0]) == (
        again.id,
        f"Went live; replaced by {again.id}",
    )


# --- interruptions ---


class Cut:
    """A store that is cut off once, at its n-th transaction, counted from 0.

    The process is killed before it begins; or it is committed and the answer is lost, so that the process asks again.
    """

    def __init__(self, store: Store, at: int, *, dies: bool) -> None:
        self._store = store
        self._left = at
        self._dies = dies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def happened(self) -> bool:
        return self._left < 0

    @contextmanager
    def transaction(self) -> Iterator[Records]:
        now, self._left = self._left == 0, self._left - 1
        if now and self._dies:
            raise Killed
        with self._store.transaction() as records:
            yield records
        if now:
            raise PlatformBroke("The platform's own database does not answer.", code="store_unreachable")


def interrupted(world: World, at: int, told: list[str], *, dies: bool) -> bool:
    """Deploy with a cut; check that the register tells the same as of any other. Whether there was a cut."""
    number = asks(world, manifest=QUICK if told[-1].endswith("succeeded") else SICK_AT_ONCE).id
    claimed = claims.claim(world.store, Tier.NONPROD, "runner-1")
    assert claimed
    whole = world.store
    cut = world.store = Cut(whole, at, dies=dies)
    try:
        world.runner().run(claimed)
    except Killed:
        world.store = whole
        if (taken := claims.take_over(whole, number, "runner-2", "runner-1")) is not None:
            world.runner("runner-2").run(taken)
    world.store = whole
    found = [line for line in lines(world, number) if not line.startswith("deployment.taken_over")]
    assert found == told, f"cut at transaction {at}"
    assert world.serving() == {world.live()}
    assert world.faults == []
    return cut.happened


@pytest.mark.parametrize("dies", [False, True], ids=["unanswered", "killed"])
def test_no_line_is_lost_or_doubled_wherever_it_is_interrupted(
    store: MemoryStore | SqlStore, tmp_path: Path, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each transaction in turn; on the real database at every third, since they are the same."""
    monkeypatch.setattr("branchline.operations.patience._FIRST_PAUSE", 0.01)
    world, at = World(tmp_path, store), 0
    while interrupted(world, at, [*BEGUN, *LIVE], dies=dies):
        if isinstance(store, MemoryStore):
            at += 1
            world = World(tmp_path / str(at))  # a fake's transaction takes longer the more it holds
        else:
            at += 3
    assert at > 30


@pytest.mark.parametrize("dies", [False, True], ids=["unanswered", "killed"])
def test_nor_is_one_where_a_sick_release_is_undone(tmp_path: Path, dies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchline.operations.patience._FIRST_PAUSE", 0.01)
    for at in range(25, 100):  # from before the switch on
        world = World(tmp_path / str(at))
        live = asks(world).id
        carries(world)
        turns_sick(world)
        happened = interrupted(world, at, CASES["undone"].lines, dies=dies)
        assert world.live() == live
        if not happened:
            break
    assert at > 32
