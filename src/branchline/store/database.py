"""The store on PostgreSQL: transactions, and the logs beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke
from branchline.records import GONE_STAGE, GONE_TEXT, STORE_AWAY, STORE_FULL, Line
from branchline.store import tables as t
from branchline.store.config import SqlConfigChanges
from branchline.store.deployments import SqlDeployments
from branchline.store.logins import SqlDeviceLogins, SqlPendingLogins, SqlSessions
from branchline.store.people import SqlMembers, SqlTokens
from branchline.store.projects import SqlEnvironments, SqlProjects, SqlReleases
from branchline.store.register import SqlRegister

_PING_SECONDS = 3.0
_STATEMENT_SECONDS = 30.0
_POOL_SECONDS = 8.0
_LOGS_AT_ONCE = 50


class _Session(psycopg.Connection[Any]):
    """A connection that waits `limit` seconds for each answer: a frozen server heeds no timeout of its own."""

    limit: float | None = _PING_SECONDS

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.limit if timeout is None else timeout)
        except psycopg.OperationalError:
            # Server errors leave it between two statements; in the midst of one it is of no use to anybody.
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.close()
            raise


def connect(url: Secret, pool: int = 8, name: str = "branchline") -> sa.Engine:
    """An engine for the platform's database. Connections are checked before use and time out instead of hanging.

    `name` is what its sessions call themselves. Up to 16 work at once, `pool` stay: an idle one costs 1 to 4 MB of
    memory, making a new one 10 to 30 ms.
    """
    address = sa.make_url(url.reveal()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        address,
        pool_size=pool,
        pool_use_lifo=True,
        max_overflow=16 - pool,
        pool_pre_ping=True,
        pool_timeout=_POOL_SECONDS,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,  # a host that vanished in the middle of a statement
            "application_name": name,
            "options": "-c lock_timeout=15s",
        },
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> _Session:
        return _Session.connect(*arguments, **options)

    # It is pinged before it is checked out.
    @sa.event.listens_for(engine, "checkout")
    def _work(session: _Session, *_: Any) -> None:
        session.limit = _STATEMENT_SECONDS

    @sa.event.listens_for(engine, "checkin")
    def _rest(session: _Session | None, _record: Any) -> None:
        if session is not None:
            session.limit = _PING_SECONDS

    @sa.event.listens_for(engine, "handle_error")
    def _mark_lost(context: sa.engine.ExceptionContext) -> None:
        # psycopg words a lost connection in several ways; without an SQLSTATE it never came from the server.
        error = context.original_exception
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            context.is_disconnect = True

    return engine


def without_limit(connection: sa.Connection) -> None:
    """Let statements of this connection take what they need, until it goes back to the pool."""
    session: Any = connection.connection.dbapi_connection
    session.limit = None


class SqlRecords:
    """The tables within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.projects = SqlProjects(connection)
        self.environments = SqlEnvironments(connection)
        self.releases = SqlReleases(connection)
        self.deployments = SqlDeployments(connection)
        self.register = SqlRegister(connection)
        self.members = SqlMembers(connection)
        self.tokens = SqlTokens(connection)
        self.config = SqlConfigChanges(connection)
        self.sessions = SqlSessions(connection)
        self.pending_logins = SqlPendingLogins(connection)
        self.device_logins = SqlDeviceLogins(connection)


class SqlStore:
    """Port `Store` on PostgreSQL."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def rest(self) -> None:
        """Let go of the connections that nobody uses now; new ones are made when they are needed."""
        self.engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[SqlRecords]:
        """One transaction; a lost database is told as PlatformBroke (`store_unreachable`)."""
        with _told(), self.engine.begin() as connection:
            yield SqlRecords(connection)

    @contextmanager
    def alone(self, name: str, *, shared: bool = False, wait: float = 0.0) -> Iterator[bool]:
        """Whether nobody else is in a block of this name, by an advisory lock that ends with its session."""
        kind = "_shared" if shared else ""
        unlock = getattr(sa.func, f"pg_advisory_unlock{kind}")
        key = sa.func.hashtextextended(f"branchline-alone:{name}", 0)
        with _told():
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        with connection as guard:
            with _told():
                held = _waited(guard, key, kind, wait) if wait else _tried(guard, key, kind)
            try:
                yield held
            finally:
                if held:
                    with suppress(PlatformBroke), _told():  # a session that was lost holds nothing any more
                        guard.execute(sa.select(unlock(key)))

    def append_log(self, deployment: int, lines: Sequence[tuple[datetime, str, str]]) -> None:
        """Add lines: time, stage, text."""
        if not lines:
            return
        with _told(), self.engine.begin() as connection:
            connection.execute(
                t.log_line.insert(),
                [
                    # PostgreSQL cannot store NUL in a text; what shows a control character is more use than a fault.
                    {"deployment_id": deployment, "at": at, "stage": stage, "text": text.replace("\x00", "␀")}
                    for at, stage, text in lines
                ],
            )

    def read_log(self, deployment: int, after: int, limit: int) -> list[Line]:
        """The lines after a `seq`, oldest first."""
        query = (
            sa.select(t.log_line.c.seq, t.log_line.c.at, t.log_line.c.stage, t.log_line.c.text)
            .where(t.log_line.c.deployment_id == deployment, t.log_line.c.seq > after)
            .order_by(t.log_line.c.seq)
            .limit(limit)
        )
        with _told(), self.engine.connect() as connection:
            return [Line(*row) for row in connection.execute(query)]

    def before_the_last(self, deployment: int, count: int) -> int:
        """The `seq` after which the last `count` lines of a log come: 0 where it has no more than these."""
        seq = t.log_line.c.seq
        query = sa.select(seq).where(t.log_line.c.deployment_id == deployment).order_by(seq.desc())
        with _told(), self.engine.connect() as connection:
            return connection.execute(query.offset(count).limit(1)).scalar_one_or_none() or 0

    def last_lines(self, deployment: int, stage: str, count: int) -> list[str]:
        """The texts of a stage's last lines, oldest first."""
        query = (
            sa.select(t.log_line.c.text)
            .where(t.log_line.c.deployment_id == deployment, t.log_line.c.stage == stage)
            .order_by(t.log_line.c.seq.desc())
            .limit(count)
        )
        with _told(), self.engine.connect() as connection:
            return list(connection.execute(query).scalars())[::-1]

    def log_size(self, deployment: int) -> int:
        """Characters that the log holds."""
        size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(t.log_line.c.text)), 0))
        with _told(), self.engine.connect() as connection:
            return int(connection.execute(size.where(t.log_line.c.deployment_id == deployment)).scalar_one())

    def prune_logs(self, before: datetime, keep: int) -> int:
        """Remove the logs of deployments that ended before then, or have `keep` newer ones in their environment."""
        newest_first = t.deployment.c.id.desc()
        newness = sa.func.row_number().over(partition_by=t.deployment.c.environment_id, order_by=newest_first)
        ended = sa.select(t.deployment.c.id, t.deployment.c.finished_at, newness.label("newness")).where(
            t.deployment.c.finished_at.is_not(None)
        )
        live = sa.select(t.environment.c.live_deployment_id).where(t.environment.c.live_deployment_id.is_not(None))
        counted = ended.subquery()
        old = sa.select(counted.c.id).where(
            (counted.c.finished_at < before) | (counted.c.newness > keep), counted.c.id.not_in(live)
        )
        kept = (t.log_line.c.deployment_id == counted.c.id) & (t.log_line.c.stage != GONE_STAGE)
        some = old.where(sa.exists().where(kept)).order_by(counted.c.id).limit(_LOGS_AT_ONCE)
        count = 0
        while gone := self._prune_some(some):
            count += gone
        return count

    def _prune_some(self, old: sa.Select[tuple[int]]) -> int:
        """So few that no statement takes long: after an outage, or with a new setting, there may be very many."""
        with _told(), self.engine.begin() as connection:
            gone = list(connection.execute(old).scalars())
            if gone:
                mine = t.log_line.c.deployment_id.in_(gone) & (t.log_line.c.stage != GONE_STAGE)
                connection.execute(t.log_line.delete().where(mine))
                now = datetime.now(UTC)
                left = [{"deployment_id": one, "at": now, "stage": GONE_STAGE, "text": GONE_TEXT} for one in gone]
                connection.execute(t.log_line.insert(), left)
        return len(gone)

    def stage_seconds(self) -> dict[str, tuple[int, float]]:
        """For each stage name: how many ended, and their seconds in all."""
        took = sa.func.extract("epoch", t.stage.c.finished_at - t.stage.c.started_at)
        query = (
            sa.select(t.stage.c.name, sa.func.count(), sa.func.sum(took))
            .where(t.stage.c.finished_at.is_not(None))
            .group_by(t.stage.c.name)
        )
        with _told(), self.engine.connect() as connection:
            return {name: (count, float(seconds)) for name, count, seconds in connection.execute(query)}

    def ping(self) -> dict[str, Any]:
        """Raise PlatformBroke unless the database answers."""
        with _told(), self.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        return {}


def _tried(guard: sa.Connection, key: sa.ColumnElement[int], kind: str) -> bool:
    """Whether the lock was free, and nobody waits for it."""
    lock = getattr(sa.func, f"pg_try_advisory_lock{kind}")
    return bool(guard.execute(sa.select(lock(key))).scalar())


def _waited(guard: sa.Connection, key: sa.ColumnElement[int], kind: str, seconds: float) -> bool:
    """Whether the lock was had in time. PostgreSQL's locks form a line: who only tries is not let past who waits."""
    lock = getattr(sa.func, f"pg_advisory_lock{kind}")
    guard.execute(sa.select(sa.func.set_config("lock_timeout", f"{seconds * 1000:.0f}ms", False)))
    try:
        guard.execute(sa.select(lock(key)))
    except sa.exc.OperationalError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            return False
        raise
    finally:
        with suppress(sa.exc.DBAPIError):  # lost, and of no use to anybody after us
            guard.execute(sa.text("RESET lock_timeout"))
    return True


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        if isinstance(getattr(error, "orig", None), psycopg.errors.DiskFull):
            raise PlatformBroke(
                "The disk of the platform's own database is full.",
                code=STORE_FULL,
                hint="Make room on it; what waits for it goes on by itself.",
            ) from error
        raise PlatformBroke(
            "The platform's own database does not answer.",
            code=STORE_AWAY,
            hint="See `branchline status`; `branchline up` restarts the embedded one by itself.",
        ) from error
