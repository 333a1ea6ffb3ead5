"""The way back in for whoever has the platform's own machine: a new admin's token, when no other is to be had."""

from __future__ import annotations

import getpass
from pathlib import Path

from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.gate import Gate
from branchline.operations.tokens import Tokens
from branchline.settings import Settings
from branchline.stack import files
from branchline.store.database import SqlStore, connect

ADMIN_TOKEN = "admin.token"  # noqa: S105 the name of a file


def recover(settings: Settings) -> Path:
    """Make an admin's token and put it where this machine's command line looks for one; return that file.

    One that was made so before is worth nothing any more. The register tells who did it. Raises PlatformBroke:
    `not_set_up`, `key_unreadable` for whoever may not read the platform's keys, `store_unreachable`.
    """
    layout = Layout.load(settings.home)
    engine = connect(Endpoints(settings, layout).platform_database, pool=1)
    try:
        store = SqlStore(engine)
        file = layout.home / ADMIN_TOKEN
        Tokens(store, Gate(store)).recover(getpass.getuser(), lambda token: files.write(file, token + "\n"))
    finally:
        engine.dispose()
    return file
