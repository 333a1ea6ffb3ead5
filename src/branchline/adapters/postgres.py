"""The databases of environments, on their tier's PostgreSQL server (16 or newer)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from branchline.adapters.postgres_session import PostgresServer, is_superuser, lock, run
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.names import check_name

CONNECTION_LIMIT = 40
"""Connections that one environment may hold: one that leaks them does not take the server from the others."""

MAX_NAME = 63
"""Bytes of a PostgreSQL identifier; the server cuts longer ones off in silence."""

# One row that says all there is to know, so that the common case costs one query.
_LOOK = """
SELECT r.oid IS NOT NULL AS has_role,
       coalesce(r.rolcanlogin AND r.rolinherit AND r.rolconnlimit = {limit}
                AND NOT (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls)
                AND coalesce(r.rolvaliduntil, 'infinity') = 'infinity', false) AS role_fits,
       {verifier} AS verifier,
       coalesce(pg_has_role(current_user, r.oid, 'SET') AND pg_has_role(current_user, r.oid, 'USAGE'), false)
           AS may_act_as_role,
       d.oid IS NOT NULL AS has_database,
       coalesce(d.datconnlimit = -2, false) AS half_dropped,
       coalesce(d.datdba = r.oid, false) AS owner_fits,
       coalesce(d.datallowconn AND d.datconnlimit = -1 AND NOT d.datistemplate
                AND NOT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                                 WHERE a.grantee = 0)
                AND has_database_privilege('pg_database_owner', d.oid, 'CREATE')
                AND has_database_privilege('pg_database_owner', d.oid, 'TEMP')
                AND EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = r.oid
                                   AND 'role=pg_database_owner' = ANY (s.setconfig)), false) AS database_fits,
       ARRAY(SELECT w.datname::text FROM pg_database w
              WHERE w.datname IN ('postgres', 'template1') AND pg_has_role(current_user, w.datdba, 'USAGE')
                    AND EXISTS (SELECT FROM aclexplode(coalesce(w.datacl, acldefault('d', w.datdba))) a
                                 WHERE a.grantee = 0)) AS open_to_all
  FROM (VALUES ({name}::name)) AS wanted (name)
  LEFT JOIN pg_roles r ON r.rolname = wanted.name
  LEFT JOIN pg_database d ON d.datname = wanted.name
"""


@dataclass(frozen=True)
class _State:
    has_role: bool
    role_fits: bool
    verifier: str | None = field(repr=False)
    may_act_as_role: bool
    has_database: bool
    half_dropped: bool
    owner_fits: bool
    database_fits: bool
    open_to_all: list[str]


class PostgresDatabases:
    """Makes each database with a role of its own of the same name, which owns it and can enter no other.

    Everything in a database belongs to `pg_database_owner`, so that a copy of it belongs to whoever owns the copy.
    """

    def __init__(self, admin_url: Secret, host: str, port: int, key: Secret, tier: Tier) -> None:
        """`host` and `port` are where containers reach the server. Passwords derive from `key`, so none is stored.

        The admin is a superuser, or has CREATEDB and CREATEROLE. No connection is made yet; raises PlatformBroke
        (`database_refused`) where `admin_url` is no URL of PostgreSQL.
        """
        self._server = PostgresServer(admin_url, tier)
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._key = key
        self._tier = tier

    def ensure(self, environment: Environment, database: str) -> Secret:
        """Make the environment's database and role, or repair them; return its URL as containers reach it.

        Raises PlatformBroke: `database_unreachable`, `database_refused`.
        """
        self._check(environment)
        name = database_name(environment, database)
        with self._server.connection() as connection:
            state = _look(connection, name)
            if not self._fits(state, name):
                lock(connection, name)
                self._make(connection, name)
        return self._url(name)

    def ensure_scratch(self, environment: Environment, database: str, name: str) -> Secret:
        """An empty throw-away database for tests with a role of its own, made anew on each call; return its URL.

        `name` tells the throw-away copies of one database apart. Raises as `ensure` does.
        """
        self._check(environment)
        scratch = database_name(environment, database, name)
        with self._server.connection() as connection:
            lock(connection, scratch)
            _drop(connection, scratch)
            self._make(connection, scratch)
        return self._url(scratch)

    def drop_scratch(self, environment: Environment, database: str, name: str) -> None:
        """Drop it and its role, ending whatever is connected; what is not there is fine."""
        self._check(environment)
        scratch = database_name(environment, database, name)
        with self._server.connection() as connection:
            lock(connection, scratch)
            _drop(connection, scratch)

    def _make(self, connection: psycopg.Connection, name: str) -> None:
        """Bring role and database to what they should be, from whatever state a killed process left them in."""
        state = _look(connection, name)
        identifier = sql.Identifier(name)
        if state.open_to_all:
            lock(connection, "branchline: entry to shared databases")
            for shared in state.open_to_all:
                run(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", sql.Identifier(shared))
        if not self._password_fits(state, name) or not state.role_fits or not state.may_act_as_role:
            self._make_role(connection, name, state)
        if state.half_dropped:
            run(connection, "DROP DATABASE {}", identifier)
        if state.half_dropped or not state.has_database:
            # Nobody gets in before PUBLIC is out. template0 has no sessions, and a copy of it is always UTF-8.
            run(
                connection,
                "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' CONNECTION LIMIT 0",
                *(identifier, identifier),
            )
        elif not state.owner_fits:
            run(connection, "ALTER DATABASE {} OWNER TO {}", identifier, identifier)
        elif state.database_fits:
            return
        with connection.transaction():
            run(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", identifier)
            run(connection, "GRANT CREATE, TEMP ON DATABASE {} TO pg_database_owner", identifier)
            run(connection, "ALTER ROLE {} IN DATABASE {} SET role = 'pg_database_owner'", identifier, identifier)
            run(connection, "ALTER DATABASE {} IS_TEMPLATE false ALLOW_CONNECTIONS true", identifier)
            run(connection, "ALTER DATABASE {} CONNECTION LIMIT -1", identifier)

    def _make_role(self, connection: psycopg.Connection, name: str, state: _State) -> None:
        # Hashed here, so that the password is in no statement and no log of the server.
        verifier = connection.pgconn.encrypt_password(
            self._password(name).encode(), name.encode(), b"scram-sha-256"
        ).decode()
        attributes = "LOGIN INHERIT NOCREATEDB NOCREATEROLE VALID UNTIL 'infinity'"
        if is_superuser(connection):  # others may not even mention these
            attributes += " NOSUPERUSER NOREPLICATION NOBYPASSRLS"
        with connection.transaction():
            run(
                connection,
                ("ALTER" if state.has_role else "CREATE")
                + " ROLE {} "
                + attributes
                + " CONNECTION LIMIT {} PASSWORD {}",
                *(sql.Identifier(name), sql.Literal(CONNECTION_LIMIT), sql.Literal(verifier)),
            )
            if not state.may_act_as_role and not is_superuser(connection):
                run(connection, "GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE", sql.Identifier(name))

    def _fits(self, state: _State, name: str) -> bool:
        whole = state.role_fits and state.may_act_as_role and state.owner_fits and state.database_fits
        return whole and not state.open_to_all and self._password_fits(state, name)

    def _password_fits(self, state: _State, name: str) -> bool:
        """Whether the stored verifier is that of our password; False where we may not see it, so it is set again."""
        match = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", state.verifier or "")
        if not match:
            return False
        salted = hashlib.pbkdf2_hmac("sha256", self._password(name).encode(), base64.b64decode(match[2]), int(match[1]))
        stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        return hmac.compare_digest(stored, base64.b64decode(match[3]))

    def _password(self, name: str) -> str:
        """The same on every runner of the tier and after every crash."""
        digest = hmac.digest(self._key.reveal().encode(), f"database:{name}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _url(self, name: str) -> Secret:
        role, password = quote(name, safe=""), quote(self._password(name), safe="")
        return Secret(f"postgresql://{role}:{password}@{self._host}:{self._port}/{role}")

    def _check(self, environment: Environment) -> None:
        if environment.tier is not self._tier:
            raise PlatformBroke(
                f"The databases of {environment.key} are not on the server of {self._tier}.",
                code="database_refused",
                hint=f"{environment.key} belongs to the tier {environment.tier}: its own runner must deploy it.",
            )


def database_name(environment: Environment, *parts: str) -> str:
    """The name of a database of an environment, and of its role: stable, at most 63 bytes, never that of another.

    Parts are joined by `_`, which occurs in none of them. Only names that had to be shortened hold `__`, and only
    those that PostgreSQL would reserve for itself begin with `_`.
    """
    for part in parts:
        check_name(part, "database")
    name = "_".join((environment.project, environment.name, *parts))
    if name.startswith("pg_"):
        name = "_" + name
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME - 22]}__{hashlib.sha256(name.encode()).hexdigest()[:20]}"
    return name


def _look(connection: psycopg.Connection, name: str) -> _State:
    verifier = "(SELECT a.rolpassword FROM pg_authid a WHERE a.oid = r.oid)" if is_superuser(connection) else "NULL"
    query = sql.SQL(_LOOK).format(
        verifier=sql.SQL(verifier), limit=sql.Literal(CONNECTION_LIMIT), name=sql.Literal(name)
    )
    with connection.cursor(row_factory=class_row(_State)) as cursor:
        (state,) = cursor.execute(query).fetchall()
    return state


def _drop(connection: psycopg.Connection, name: str) -> None:
    run(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", sql.Identifier(name))
    run(connection, "DROP ROLE IF EXISTS {}", sql.Identifier(name))
