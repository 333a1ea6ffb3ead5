"""Leases: how runners know of each other who is alive, and the bell that wakes them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from branchline.store.deployments import WAKE

_NOTICE: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    # The same at the server's end: it is the server that must let go of the lease of a host that vanished.
    "options": "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=5000",
}
"""A host that vanished is noticed within seconds: whoever holds a lease there must not block the others."""


def _connect(engine: sa.Engine, name: str) -> psycopg.Connection[tuple[object, ...]]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(make_conninfo(url, application_name=name, **_NOTICE), autocommit=True)


def _key(runner: str) -> int:
    return int.from_bytes(hashlib.sha256(f"branchline-runner:{runner}".encode()).digest()[:8], signed=True)


class Lease:
    """Holds an advisory lock in a session of its own: the server lets go of it when this process dies."""

    def __init__(self, engine: sa.Engine, runner: str) -> None:
        self._db = _connect(engine, "branchline-lease")
        self._db.execute("SELECT pg_advisory_lock(%s)", (_key(runner),))

    @property
    def session(self) -> int:
        """The server's process that holds the lock."""
        return self._db.info.backend_pid

    def held(self) -> bool:
        """Whether the session lives; once it was lost another runner may have taken over."""
        try:
            self._db.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def dead(self, runner: str) -> bool:
        """Whether that runner lives no more. True is told to one caller at a time, until `bury`."""
        row = self._db.execute("SELECT pg_try_advisory_lock(%s)", (_key(runner),)).fetchone()
        return bool(row and row[0])

    def bury(self, runner: str) -> None:
        """Let others ask about a dead runner again."""
        self._db.execute("SELECT pg_advisory_unlock(%s)", (_key(runner),))


class Bell:
    """Rings when something was queued for a tier, so that nobody has to look often."""

    def __init__(self, engine: sa.Engine, tier: str, ring: Callable[[], None]) -> None:
        self._engine = engine
        self._tier = tier
        self._ring = ring
        threading.Thread(target=self._listen, name="bell", daemon=True).start()

    def _listen(self) -> None:
        pause = threading.Event()
        while True:
            try:
                with _connect(self._engine, "branchline-bell") as db:
                    db.execute(f"LISTEN {WAKE}".encode())
                    for notice in db.notifies():
                        if notice.payload == self._tier:
                            self._ring()
            except psycopg.OperationalError:
                pause.wait(0.5)  # the database is away; the runner looks once a second anyway
