"""The one place where settings become adapters and operations: a module for each program, which loads only its own."""

from __future__ import annotations

from branchline.endpoints import Endpoints
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate


def open_store(endpoints: Endpoints, sessions: str = "branchline") -> SqlStore:
    """Connect to the platform's database and bring its tables up to date. `sessions` is what ours call themselves."""
    engine = connect(endpoints.platform_database, name=sessions)
    with exclusively(engine):
        migrate(engine)
    return SqlStore(engine)
