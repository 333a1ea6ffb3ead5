"""The store on PostgreSQL: transactions, and the logs beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke
from branchline.records import Line
from branchline.store import tables as t
from branchline.store.deployments import SqlDeployments
from branchline.store.projects import SqlEnvironments, SqlProjects, SqlReleases
from branchline.store.register import SqlRegister, SqlTokens


def connect(url: Secret, pool: int = 8) -> sa.Engine:
    """An engine for the platform's database. Connections are checked before use and time out instead of hanging."""
    address = sa.make_url(url.reveal()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        address,
        pool_size=pool,
        max_overflow=8,
        pool_pre_ping=True,
        pool_timeout=20,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,  # a host that vanished in the middle of a statement
            "application_name": "branchline",
            "options": "-c lock_timeout=15s",
        },
    )

    @sa.event.listens_for(engine, "handle_error")
    def _mark_lost(context: sa.engine.ExceptionContext) -> None:
        # psycopg words a lost connection in several ways; without an SQLSTATE it never came from the server.
        error = context.original_exception
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            context.is_disconnect = True

    return engine


class SqlRecords:
    """The tables within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.projects = SqlProjects(connection)
        self.environments = SqlEnvironments(connection)
        self.releases = SqlReleases(connection)
        self.deployments = SqlDeployments(connection)
        self.register = SqlRegister(connection)
        self.tokens = SqlTokens(connection)


class SqlStore:
    """Port `Store` on PostgreSQL."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @contextmanager
    def transaction(self) -> Iterator[SqlRecords]:
        """One transaction; a lost database is told as PlatformBroke (`store_unreachable`)."""
        with _told(), self.engine.begin() as connection:
            yield SqlRecords(connection)

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

    def log_size(self, deployment: int) -> int:
        """Characters that the log holds."""
        size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(t.log_line.c.text)), 0))
        with _told(), self.engine.connect() as connection:
            return int(connection.execute(size.where(t.log_line.c.deployment_id == deployment)).scalar_one())

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


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        raise PlatformBroke(
            "The platform's own database does not answer.",
            code="store_unreachable",
            hint="See `branchline status`; `branchline up` restarts the embedded one by itself.",
        ) from error
