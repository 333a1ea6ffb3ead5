"""Fake of Databases: names and passwords, and the tables that tests put into them."""

from __future__ import annotations

import hashlib
import threading

from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import PlatformBroke


class FakeDatabases:
    """The server of one tier. `tables` holds what is in each database, by URL; after `go_down` all calls fail."""

    def __init__(self, tier: Tier) -> None:
        self._down = False
        self.tables: dict[str, set[str]] = {}
        self._tier = tier
        self._lock = threading.Lock()

    def ensure(self, environment: Environment, database: str) -> Secret:
        """As the port promises."""
        url = self._url(environment, database)
        with self._lock:
            self.tables.setdefault(url, set())
        return Secret(url)

    def ensure_scratch(self, environment: Environment, database: str, name: str) -> Secret:
        """As the port promises."""
        url = self._url(environment, database, name)
        with self._lock:
            self.tables[url] = set()
        return Secret(url)

    def drop_scratch(self, environment: Environment, database: str, name: str) -> None:
        """As the port promises."""
        url = self._url(environment, database, name)
        with self._lock:
            self.tables.pop(url, None)

    def go_down(self) -> None:
        """Answer nobody any more."""
        self._down = True

    def _url(self, environment: Environment, *parts: str) -> str:
        if self._down:
            raise PlatformBroke("The database server is down.", code="database_unreachable", hint="Start it.")
        if environment.tier is not self._tier:
            raise PlatformBroke("That is another tier's.", code="database_refused", hint="Use its own runner.")
        name = "_".join((environment.project, environment.name, *parts))
        password = hashlib.sha256(name.encode()).hexdigest()
        return f"postgresql://{name}:{password}@database.test:5432/{name}"
