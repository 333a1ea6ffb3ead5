"""Leases: how runners know of each other who is alive, and the bell that wakes them."""

from __future__ import annotations

import hashlib
import threading
import time
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


def sessions_of(runner: str) -> str:
    """What all sessions of a runner call themselves, so that they can be ended with its lease."""
    return f"branchline-{hashlib.sha256(runner.encode()).hexdigest()[:16]}"


def _connect(engine: sa.Engine, name: str) -> psycopg.Connection[tuple[object, ...]]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(make_conninfo(url, application_name=name, **_NOTICE), autocommit=True)


def _key(runner: str) -> int:
    return int.from_bytes(hashlib.sha256(f"branchline-runner:{runner}".encode()).digest()[:8], signed=True)


SILENCE = 10.0
"""Seconds after which a runner whose session says nothing counts as dead: it is paused, frozen or out of reach."""

_BEAT = 1.0

_HOLDER = """
    SELECT activity.pid, activity.state_change::text
    FROM pg_locks JOIN pg_stat_activity activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = %s
"""


_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"


class Lease:
    """Holds an advisory lock in a session of its own: the server lets go of it when this process dies.

    A process that is only paused keeps its session. So each holder says something once a second, and whoever finds
    another's session silent for `silence` seconds (by its own monotonic clock: the machine's may jump) ends it, with
    all other sessions of that runner, and so with whatever they hold.
    """

    def __init__(self, engine: sa.Engine, runner: str, silence: float = SILENCE) -> None:
        self._db = _connect(engine, sessions_of(runner))
        self._db.execute("SELECT pg_advisory_lock(%s)", (_key(runner),))
        self._silence = silence
        self._heard: dict[str, tuple[object, float]] = {}

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

    def keep(self, lost: Callable[[], None]) -> None:
        """From now on say something every second, from a thread of its own; call `lost` when the session is gone."""

        def beat() -> None:
            while self.held():
                time.sleep(_BEAT)
            lost()

        threading.Thread(target=beat, name="lease", daemon=True).start()

    def dead(self, runner: str) -> bool:
        """Whether that runner lives no more. True is told to one caller at a time, until `bury`.

        To be asked every second or so: silence is what several looks have not heard.
        """
        row = self._db.execute("SELECT pg_try_advisory_lock(%s)", (_key(runner),)).fetchone()
        if row and row[0]:
            self._heard.pop(runner, None)
            # What it was writing when it died may still hold rows: of a host that vanished, for many seconds.
            self._db.execute(_END_SESSIONS, (sessions_of(runner),))
            return True
        self._end_if_silent(runner)
        return False

    def bury(self, runner: str) -> None:
        """Let others ask about a dead runner again."""
        self._db.execute("SELECT pg_advisory_unlock(%s)", (_key(runner),))

    def _end_if_silent(self, runner: str) -> None:
        holder = self._db.execute(_HOLDER, (_key(runner),)).fetchone()
        now = time.monotonic()
        if holder is None or self._heard.get(runner, (None, 0.0))[0] != holder:
            self._heard[runner] = (holder, now)
        elif now - self._heard[runner][1] > self._silence:
            self._db.execute(_END_SESSIONS, (sessions_of(runner),))


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
