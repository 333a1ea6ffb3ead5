"""What tests do at a tier's PostgreSQL besides the adapter."""

from __future__ import annotations

import psycopg

from branchline.adapters.postgres import PostgresDatabases
from branchline.domain.config import Secret
from branchline.domain.environment import Tier
from branchline.stack.postgres import Postgres

KEY = Secret("a key that passwords derive from")


class RealServer:
    """The embedded nonprod server, entered from this machine."""

    def __init__(self, postgres: Postgres) -> None:
        self.admin_url = postgres.admin_url()
        self.host = "127.0.0.1"
        self.port = postgres.port

    def databases(self, key: Secret = KEY) -> PostgresDatabases:
        """What a runner has."""
        return PostgresDatabases(self.admin_url, self.host, self.port, key, Tier.NONPROD)

    def connect(self, url: Secret) -> psycopg.Connection:
        """A session as a program of the environment has it."""
        return psycopg.connect(url.reveal(), autocommit=True, connect_timeout=5)

    def admin(self) -> psycopg.Connection:
        """A session of the superuser."""
        return psycopg.connect(self.admin_url.reveal(), autocommit=True, connect_timeout=5)

    def add_table(self, url: Secret, name: str) -> None:
        """Make a table, as a migration would."""
        with self.connect(url) as connection:
            connection.execute(psycopg.sql.SQL("CREATE TABLE {} ()").format(psycopg.sql.Identifier(name)))

    def tables(self, url: Secret) -> set[str]:
        """The tables that are there."""
        with self.connect(url) as connection:
            return {
                name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            }

    def exists(self, url: Secret) -> bool:
        """Whether there is such a database, or its role."""
        name = database(url)
        with self.admin() as connection:
            query = "SELECT FROM pg_database WHERE datname = %s UNION ALL SELECT FROM pg_roles WHERE rolname = %s"
            return connection.execute(query, (name, name)).rowcount > 0

    def go_down(self) -> None:
        """From here on it is looked for where nobody listens."""
        self.admin_url = Secret("postgresql://postgres:secret@127.0.0.1:1/postgres")


def database(url: Secret) -> str:
    """The name of the database, and of its role."""
    return url.reveal().rpartition("/")[2]
