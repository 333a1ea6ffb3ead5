"""Connections to a tier's PostgreSQL server as its admin: time limits, and its errors in our words."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from branchline.domain.config import Secret
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke

CONNECT_SECONDS = 5
LOCK_SECONDS = 20
STATEMENT_SECONDS = 45
CALL_SECONDS = 90.0

_OLDEST_VERSION = 160000  # grants WITH SET and WITH INHERIT, which an admin that is no superuser needs
_SERVER_TROUBLE = ("08", "53", "55P03", "57", "58")  # connection, resources, locks, operator, system


class PostgresServer:
    """Where a tier's databases are, and how its admin connects."""

    def __init__(self, admin_url: Secret, tier: Tier) -> None:
        """Raises PlatformBroke (`database_refused`) where `admin_url` is no URL of PostgreSQL."""
        try:
            given = conninfo_to_dict(admin_url.reveal())
        except psycopg.Error:
            raise PlatformBroke(
                f"The address of the {tier} PostgreSQL is not one that PostgreSQL understands.",
                code="database_refused",
                hint="Write it as postgresql://user:password@host:port/database, with special signs as %XX.",
            ) from None
        limits = f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s"
        given["options"] = f"{given.get('options') or ''} {limits}".strip()
        given["application_name"] = "branchline"
        given["connect_timeout"] = CONNECT_SECONDS
        self._conninfo = make_conninfo("", **given)
        self._tier = tier

    @contextmanager
    def connection(self, seconds: float = CALL_SECONDS) -> Iterator[psycopg.Connection]:
        """A connection outside of any transaction, which ends after `seconds`, even if the server is frozen.

        What goes wrong within comes out as PlatformBroke: `database_unreachable`, `database_refused`.
        """
        try:
            with psycopg.connect(self._conninfo, autocommit=True) as connection, _cut_off(connection, seconds):
                if connection.info.server_version < _OLDEST_VERSION:
                    raise PlatformBroke(
                        f"The {self._tier} PostgreSQL is of version {connection.info.server_version // 10000}.",
                        code="database_refused",
                        hint="Databases of environments need version 16 or newer.",
                    )
                yield connection
        except psycopg.Error as error:
            raise self._explain(error) from None

    def _explain(self, error: psycopg.Error) -> PlatformBroke:
        """What libpq and the server say names hosts, roles and objects; the password is in none of it."""
        state = error.sqlstate or ""
        if state and not state.startswith(_SERVER_TROUBLE):
            return PlatformBroke(
                f"The {self._tier} PostgreSQL refuses what the platform needs.",
                code="database_refused",
                hint="The admin must have CREATEDB and CREATEROLE, and must have made the roles of environments "
                f"itself. It said: {error.diag.message_primary}",
            )
        said = error.diag.message_primary or " ".join(str(error).split()).rpartition("failed: ")[2]
        return PlatformBroke(
            f"The {self._tier} PostgreSQL cannot be used right now.",
            code="database_unreachable",
            hint=f"See whether it runs: `branchline status`. It said: {said[:300]}",
        )


def is_superuser(connection: psycopg.Connection) -> bool:
    """Whether the admin may do everything; the server says so when it is connected to."""
    return connection.info.parameter_status("is_superuser") == "on"


def lock(connection: psycopg.Connection, what: str) -> None:
    """Wait for everybody else who makes the same thing; held until the connection ends, however it ends."""
    number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
    connection.execute("SELECT pg_advisory_lock(%s)", (number,))


def run(connection: psycopg.Connection, statement: str, *parts: sql.Composable) -> None:
    """Run a statement with names and literals in the place of its `{}`."""
    connection.execute(sql.SQL(statement).format(*parts))


@contextmanager
def _cut_off(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """End the connection after a time: a frozen server heeds no timeout of its own."""

    def cut() -> None:
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
