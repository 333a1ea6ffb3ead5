"""The one place where settings become adapters and operations: a module for each program, which loads only its own."""

from __future__ import annotations

from branchline.endpoints import Endpoints
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate


def open_store(endpoints: Endpoints, sessions: str = "branchline", pool: int = 8) -> SqlStore:
    """Connect to the platform's database and bring its tables up to date.

    `sessions` is what ours call themselves; `pool` of them stay when they have nothing to do.
    """
    engine = connect(endpoints.platform_database, pool, sessions)
    with exclusively(engine):
        migrate(engine)
    store = SqlStore(engine)
    store.rest()  # a session that has migrated keeps the whole catalog in mind: 4 MB
    return store
