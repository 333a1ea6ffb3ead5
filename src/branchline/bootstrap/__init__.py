"""The one place where settings become adapters and operations: a module for each program, which loads only its own."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from branchline.endpoints import Endpoints
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate


def open_store(endpoints: Endpoints, *prepare: Callable[[sa.Engine], None]) -> SqlStore:
    """Connect to the platform's database and bring its tables up to date, with whatever else wants tables there."""
    engine = connect(endpoints.platform_database)
    with exclusively(engine):
        for change in (migrate, *prepare):
            change(engine)
    return SqlStore(engine)
