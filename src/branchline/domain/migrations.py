"""Which files of a repository are database migrations: one rule for all projects, by path."""

from __future__ import annotations

import re

ENDINGS = (".py", ".rb", ".sql")
"""No other file can be a migration."""

_MIGRATION = re.compile(
    r"(?:^|/)(?:"
    r"migrations/[0-9]{4}_[^/]+\.py"  # Django, and what numbers its migrations likewise
    r"|(?:alembic|migrations)/versions/(?!__init__\.)[^/]+\.py"  # Alembic, Flask-Migrate
    r"|versions/[0-9a-f]{4,}_[^/]+\.py"  # Alembic in any other folder: REVISION_what_it_does.py
    r"|db/migrate/[^/]+\.rb"  # Rails
    r"|migrations/(?:[^/]+/)*[^/]+\.sql"  # plain SQL, also a folder for each migration
    r")$"
)


def is_migration(path: str) -> bool:
    """Whether a file changes a database when the project's release command finds it; `docs/manifest.md` tells how."""
    return _MIGRATION.search(path) is not None
