"""Databases of environments."""

from __future__ import annotations

from typing import Protocol

from branchline.domain.config import Secret
from branchline.domain.environment import Environment


class Databases(Protocol):
    """The databases of environments on their tier's server."""

    def ensure(self, environment: Environment, database: str) -> Secret:
        """Make the environment's database and role; return its URL as containers reach it.

        The role owns its database, can migrate it, and reaches no other.
        """

    def ensure_scratch(self, environment: Environment, database: str, name: str) -> Secret:
        """An empty throw-away database for tests, made anew on each call."""

    def drop_scratch(self, environment: Environment, database: str, name: str) -> None:
        """Drop it, ending whatever is connected."""
