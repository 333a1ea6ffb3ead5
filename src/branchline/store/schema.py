"""Brings the database's schema up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from branchline.domain.errors import TimedOut
from branchline.store.database import without_limit

_LOCK = 0x6272_616E_6368  # "branch": one process migrates, others wait for it
_PATIENCE = 120.0
_MIGRATIONS = Path(__file__).parent / "migrations"


@contextmanager
def exclusively(engine: sa.Engine, patience: float = _PATIENCE) -> Iterator[None]:
    """Change a schema while no other process does: those that start at the same time wait for each other.

    Raises TimedOut after `patience` seconds.
    """
    # Each statement ends its transaction: one that stays open would hold up whoever builds an index meanwhile.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        until = time.monotonic() + patience
        while not guard.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK))).scalar():
            if time.monotonic() > until:
                raise TimedOut(
                    f"Another process has been changing the platform's tables for {patience:g} s.",
                    hint="See whether another server or runner hangs while it starts; `branchline status` shows them.",
                )
            time.sleep(0.1)
        try:
            yield
        finally:
            guard.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))


def migrate(engine: sa.Engine) -> None:
    """Run what migrations are missing; call it within `exclusively`."""
    with engine.connect() as connection:
        newest = max(file.name.partition("_")[0] for file in _MIGRATIONS.glob("versions/0*.py"))
        if (_revision(connection) or "") >= newest:  # newer ones are a newer version's, which leaves us what we need
            return
        without_limit(connection)  # an index of a large table may take minutes
        # Only now: it takes 11 MB, of which a process that finds nothing to do should not keep any.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _revision(connection: sa.Connection) -> str | None:
    """The migration that the tables are at; None where there are none yet."""
    if connection.execute(sa.text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
