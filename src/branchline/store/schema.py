"""Brings the database's schema up to date."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

_LOCK = 0x6272_616E_6368  # "branch": one process migrates, others wait for it


def _alembic(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def migrate(engine: sa.Engine) -> None:
    """Run what migrations are missing. Processes that start at the same time wait for each other."""
    with engine.connect() as guard:
        guard.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        guard.commit()
        try:
            with engine.connect() as connection:
                command.upgrade(_alembic(connection), "head")
                connection.commit()
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            guard.commit()
