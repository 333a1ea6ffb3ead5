"""PostgreSQL as we set it up: what an environment's role may do, what it is refused, and what is repaired."""

from __future__ import annotations

import socket
import time
import traceback
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from branchline.adapters.postgres import CONNECTION_LIMIT, PostgresDatabases, database_name
from branchline.adapters.postgres_session import PostgresServer
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import PlatformBroke
from branchline.stack.postgres import Postgres
from tests.postgres import KEY, RealServer, database

pytestmark = pytest.mark.stack


@pytest.fixture
def server(postgres_nonprod: Postgres) -> RealServer:
    return RealServer(postgres_nonprod)


@pytest.fixture(scope="module")
def two_urls(postgres_nonprod: Postgres) -> tuple[Secret, Secret]:
    """The databases of two environments, for tests that leave them as they are."""
    databases = RealServer(postgres_nonprod).databases()
    return databases.ensure(place(), "default"), databases.ensure(place(), "default")


def place(name: str = "develop") -> Environment:
    return Environment(1, f"w{uuid.uuid4().hex[:12]}", name, Tier.NONPROD, 1)


def run(connection: psycopg.Connection, statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def test_a_role_can_do_all_that_migrations_do(server: RealServer) -> None:
    with server.connect(server.databases().ensure(place(), "default")) as connection:
        for statement in (
            "CREATE TABLE orders (id int PRIMARY KEY)",
            "ALTER TABLE orders ADD COLUMN note text",
            "CREATE INDEX CONCURRENTLY ON orders (note)",
            "CREATE SCHEMA reports",
            "CREATE VIEW reports.all_orders AS SELECT * FROM orders",
            "CREATE TEMP TABLE short (id int)",
            "CREATE EXTENSION pg_trgm",
            "CREATE EXTENSION citext SCHEMA reports",
            "DROP EXTENSION pg_trgm",
            "CREATE TYPE colour AS ENUM ('red')",
            "CREATE FUNCTION count_orders() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
            " RETURN (SELECT count(*) FROM orders)",
            "INSERT INTO orders VALUES (1, 'x')",
            "SELECT count_orders()",
            "RESET ROLE",
            "DISCARD ALL",
            "ALTER TABLE orders RENAME TO purchases",
            "VACUUM purchases",
            "DROP SCHEMA reports CASCADE",
            "DROP TABLE purchases CASCADE",
        ):
            connection.execute(statement)
        assert connection.execute("SELECT current_user::text, getdatabaseencoding()::text").fetchone() == (
            "pg_database_owner",
            "UTF8",
        )


def test_everything_belongs_to_whoever_owns_the_database(server: RealServer) -> None:
    with server.connect(server.databases().ensure(place(), "default")) as connection:
        for statement in (
            "CREATE TABLE one ()",
            "RESET ROLE",
            "CREATE TABLE two ()",
            "DISCARD ALL",
            "CREATE TABLE x ()",
        ):
            connection.execute(statement)
        owners = connection.execute("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'")
        assert owners.fetchall() == [("pg_database_owner",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "ALTER ROLE {me} SUPERUSER",
        "ALTER ROLE {me} CREATEDB",
        "ALTER ROLE {other} PASSWORD 'mine'",
        "SET ROLE {other}",
        "SET SESSION AUTHORIZATION {other}",
        "GRANT {other} TO {me}",
        "GRANT {me} TO {other}",
        "GRANT pg_read_all_data TO {me}",
        "DROP DATABASE {other}",
        "DROP ROLE {other}",
        "ALTER DATABASE {other} OWNER TO {me}",
        "ALTER DATABASE {other} CONNECTION LIMIT 0",
        "GRANT CONNECT ON DATABASE postgres TO {me}",
        "ALTER DATABASE postgres RENAME TO mine",
        "ALTER ROLE {me} IN DATABASE postgres SET role = 'postgres'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {other_text}",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/mine'",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "CREATE TABLE stolen (line text); COPY stolen FROM '/etc/passwd'",
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        "CREATE EXTENSION file_fdw",
        "LOAD '/tmp/mine.so'",
        "CREATE FUNCTION c() RETURNS int LANGUAGE c AS '/tmp/mine.so', 'c'",
        "ALTER SYSTEM SET port = 1",
        "SET session_preload_libraries = 'mine'",
        "CREATE TABLESPACE mine LOCATION '/tmp'",
        "CREATE SUBSCRIPTION mine CONNECTION 'host=127.0.0.1' PUBLICATION mine",
        "SELECT pg_reload_conf()",
        "SELECT pg_create_physical_replication_slot('mine')",
        "CHECKPOINT",
    ],
)
def test_a_role_is_refused(server: RealServer, two_urls: tuple[Secret, Secret], statement: str) -> None:
    url, other_url = two_urls
    parts = {"me": sql.Identifier(database(url)), "other": sql.Identifier(database(other_url))}
    parts["other_text"] = sql.Literal(database(other_url))
    with server.connect(other_url) as victim, server.connect(url) as connection:
        for beginning in ("RESET ROLE", "SET ROLE pg_database_owner"):
            connection.execute(beginning)
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(sql.SQL(statement).format(**parts))
            assert caught.value.sqlstate in {"42501", "0LP01", "0P000"}, caught.value
        assert victim.execute("SELECT 1").fetchone() == (1,)


def test_a_role_enters_no_other_database(two_urls: tuple[Secret, Secret]) -> None:
    url, (own, other) = two_urls[0], map(database, two_urls)
    for name in (other, "postgres", "template1", "template0", "replication"):
        address = url.reveal().removesuffix(own) + name
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(address, connect_timeout=5)
        assert "pg_hba.conf" in str(caught.value) or "permission denied" in str(caught.value)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url.reveal(), replication="database", connect_timeout=5)
    wrong = url.reveal().replace("@", "x@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong, connect_timeout=5)


def test_without_the_access_file_entry_is_still_refused(server: RealServer, two_urls: tuple[Secret, Secret]) -> None:
    """Two walls: pg_hba.conf, which is the server's, and CONNECT, which is ours and holds on external servers too."""
    url, (name, other) = two_urls[0], map(database, two_urls)
    with server.admin() as connection:
        with server.connect(url) as intruder:
            intruder.execute("SET client_min_messages = error")
            run(intruder, "GRANT CONNECT ON DATABASE {} TO {}", other, name)  # has no effect but a warning
        for target in (other, "postgres", "template1"):
            asked = connection.execute("SELECT has_database_privilege(%s, %s, 'CONNECT')", (name, target))
            assert asked.fetchone() == (False,), target
        asked = connection.execute("SELECT has_database_privilege(%s, %s, 'CONNECT')", (name, name))
        assert asked.fetchone() == (True,)


def test_a_role_does_not_see_what_others_ask(server: RealServer, two_urls: tuple[Secret, Secret]) -> None:
    mine, others = two_urls
    with server.connect(others) as talker, server.connect(mine) as listener:
        talker.execute("SELECT 'a secret of mine'")
        seen = listener.execute("SELECT query FROM pg_stat_activity WHERE datname = %s", (database(others),))
        assert seen.fetchall() == [("<insufficient privilege>",)]


def test_a_role_cannot_take_all_connections(server: RealServer) -> None:
    url = server.databases().ensure(place(), "default")
    held = [server.connect(url) for _ in range(CONNECTION_LIMIT)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            server.connect(url)
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER ROLE {me} PASSWORD 'another'",
        "ALTER ROLE {me} PASSWORD NULL",
        "ALTER ROLE {me} NOLOGIN",
        "ALTER ROLE {me} SUPERUSER",
        "ALTER ROLE {me} CREATEROLE CREATEDB REPLICATION BYPASSRLS",
        "ALTER ROLE {me} CONNECTION LIMIT -1",
        "ALTER ROLE {me} VALID UNTIL '2001-01-01'",
        "ALTER ROLE {me} IN DATABASE {me} RESET role",
        "GRANT CONNECT ON DATABASE {me} TO PUBLIC",
        "REVOKE CREATE ON DATABASE {me} FROM pg_database_owner",
        "ALTER DATABASE {me} OWNER TO postgres",
        "ALTER DATABASE {me} CONNECTION LIMIT 0",
        "ALTER DATABASE {me} ALLOW_CONNECTIONS false",
        "ALTER DATABASE {me} IS_TEMPLATE true",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
        "GRANT CONNECT, TEMP ON DATABASE template1 TO PUBLIC",
    ],
)
def test_drift_is_repaired_and_nothing_is_lost(server: RealServer, drift: str) -> None:
    environment = place()
    url = server.databases().ensure(environment, "default")
    server.add_table(url, "orders")
    with server.admin() as connection:
        before, password = _state(connection, database(url)), _verifier(connection, database(url))
        connection.execute(sql.SQL(drift).format(me=sql.Identifier(database(url))))
        assert (_state(connection, database(url)), _verifier(connection, database(url))) != (before, password)
        assert server.databases().ensure(environment, "default") == url
        assert _state(connection, database(url)) == before
    server.add_table(url, "more")
    assert server.tables(url) == {"orders", "more"}


def _state(connection: psycopg.Connection, name: str) -> list[tuple[object, ...]]:
    """All that `ensure` looks after, but for the password, which has another salt each time it is set."""
    return [
        row
        for query in (
            "SELECT to_jsonb(r) FROM pg_roles r WHERE rolname = %(name)s",
            "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = setrole WHERE rolname = %(name)s",
            "SELECT datname, datdba::regrole::text, datallowconn, datconnlimit, datistemplate,"
            " ARRAY(SELECT unnest(datacl)::text ORDER BY 1) FROM pg_database"
            " WHERE datname IN (%(name)s, 'postgres', 'template1') ORDER BY 1",
        )
        for row in connection.execute(query, {"name": name})
    ]


def _verifier(connection: psycopg.Connection, name: str) -> object:
    return connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (name,)).fetchone()


def test_a_database_that_was_half_dropped_is_made_anew(server: RealServer) -> None:
    environment = place()
    url = server.databases().ensure(environment, "default")
    server.add_table(url, "orders")
    with server.admin() as connection:  # as a server leaves it that is killed within DROP DATABASE
        connection.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", (database(url),))
    assert server.databases().ensure(environment, "default") == url
    assert server.tables(url) == set()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_what_a_killed_runner_left_is_completed(server: RealServer, steps: int) -> None:
    environment = place()
    name = database_name(environment, "default")
    with server.admin() as connection:
        for statement in (
            "CREATE ROLE {} LOGIN PASSWORD 'half'",
            "CREATE DATABASE {} CONNECTION LIMIT 0",
            "ALTER DATABASE {0} OWNER TO {0}",
        )[:steps]:
            run(connection, statement, name)
    url = server.databases().ensure(environment, "default")
    server.add_table(url, "orders")
    with server.connect(url) as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == ("pg_database_owner",)


def test_another_key_gives_other_passwords_and_takes_over(server: RealServer) -> None:
    environment = place()
    old = server.databases().ensure(environment, "default")
    new = server.databases(Secret("another key")).ensure(environment, "default")
    assert database(old) == database(new)
    assert old != new
    server.connect(new).close()
    with pytest.raises(psycopg.OperationalError):
        server.connect(old)


def test_a_scratch_database_goes_while_somebody_is_connected(server: RealServer) -> None:
    environment = place()
    url = server.databases().ensure_scratch(environment, "default", "test")
    with server.connect(url) as connection:
        connection.execute("BEGIN; CREATE TABLE held ()")
        server.databases().drop_scratch(environment, "default", "test")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not server.exists(url)


@pytest.fixture
def external(server: RealServer) -> Iterator[RealServer]:
    """The server as somebody else's: our admin is no superuser, and only has CREATEDB and CREATEROLE."""
    name = f"x_admin_{uuid.uuid4().hex[:12]}"
    with server.admin() as connection:
        run(connection, "CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD 'p @:/?#%'", name)
        run(connection, "CREATE DATABASE {} OWNER {}", name, name)
    with server.admin() as connection:
        server.admin_url = Secret(
            f"postgresql://{name}:{quote('p @:/?#%', safe='')}@{server.host}:{server.port}/{name}"
        )
        yield server
        made = connection.execute(
            "SELECT datname FROM pg_database WHERE datname <> %(admin)s AND pg_has_role(%(admin)s, datdba, 'USAGE')",
            {"admin": name},
        )
        for (owned,) in [*made.fetchall(), (name,)]:
            run(connection, "DROP DATABASE {} WITH (FORCE)", owned)
            run(connection, "DROP ROLE {}", owned)


def test_an_admin_that_is_no_superuser_is_enough(external: RealServer) -> None:
    environment = place()
    url = external.databases().ensure(environment, "default")
    external.add_table(url, "orders")
    assert external.databases().ensure(environment, "default") == url
    assert external.tables(url) == {"orders"}
    with external.connect(url) as connection:
        connection.execute("CREATE SCHEMA more; CREATE EXTENSION citext SCHEMA more")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE ROLE mine")
        scratch = external.databases().ensure_scratch(environment, "default", "test")
        with external.connect(scratch):
            assert external.databases().ensure_scratch(environment, "default", "test") == scratch
        external.databases().drop_scratch(environment, "default", "test")
    with pytest.raises(psycopg.OperationalError):
        external.connect(scratch)


def test_an_admin_that_is_no_superuser_repairs_too(external: RealServer, postgres_nonprod: Postgres) -> None:
    environment = place()
    url = external.databases().ensure(environment, "default")
    external.add_table(url, "orders")
    with psycopg.connect(postgres_nonprod.admin_url().reveal(), autocommit=True) as connection:
        name = database(url)
        run(connection, "ALTER ROLE {} NOLOGIN CONNECTION LIMIT 3 PASSWORD 'another'", name)
        run(connection, "GRANT CONNECT ON DATABASE {} TO PUBLIC", name)
        run(connection, "ALTER ROLE {0} IN DATABASE {0} RESET role", name)
        assert external.databases().ensure(environment, "default") == url
        limit = connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
        assert limit == (CONNECTION_LIMIT,)
    assert external.tables(url) == {"orders"}


def test_a_role_that_somebody_else_made_is_a_clear_error(external: RealServer, postgres_nonprod: Postgres) -> None:
    environment = place()
    RealServer(postgres_nonprod).databases().ensure(environment, "default")
    with pytest.raises(PlatformBroke) as caught:
        external.databases().ensure(environment, "default")
    assert caught.value.code == "database_refused"
    assert "permission denied" in caught.value.hint


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://postgres:SECRET@127.0.0.1:1/postgres",
        "postgresql://postgres:SECRET@{server}/postgres",
        "postgresql://nobody:SECRET@{server}/postgres",
        "postgresql://postgres:SECRET%zz@{server}/postgres",
        "SECRET",
        "postgresql://u:SECRET@[::1/x",
    ],
)
def test_errors_hold_no_password(server: RealServer, address: str) -> None:
    url = Secret(address.format(server=f"127.0.0.1:{server.port}"))
    with pytest.raises(PlatformBroke) as caught:
        PostgresDatabases(url, "127.0.0.1", 1, KEY, Tier.NONPROD).ensure(place(), "default")
    error = caught.value
    assert error.code in {"database_unreachable", "database_refused"}
    assert error.hint
    assert "SECRET" not in "".join([str(error), repr(error), error.hint, *traceback.format_exception(error)])


def test_a_server_that_does_not_answer_is_given_up(server: RealServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = Secret(f"postgresql://postgres:x@127.0.0.1:{silent.getsockname()[1]}/postgres")
        started = time.monotonic()
        with pytest.raises(PlatformBroke) as caught:
            PostgresDatabases(url, "127.0.0.1", 1, KEY, Tier.NONPROD).ensure(place(), "default")
    assert caught.value.code == "database_unreachable"
    assert time.monotonic() - started < 10


def test_a_server_that_freezes_under_way_is_given_up(server: RealServer) -> None:
    started = time.monotonic()
    with (
        pytest.raises(PlatformBroke) as caught,
        PostgresServer(server.admin_url, Tier.NONPROD).connection(seconds=0.5) as connection,
    ):
        connection.execute("SELECT pg_sleep(30)")
    assert caught.value.code == "database_unreachable"
    assert time.monotonic() - started < 5


def test_a_wait_for_somebody_else_has_an_end(server: RealServer) -> None:
    with PostgresServer(server.admin_url, Tier.NONPROD).connection() as connection:
        for setting in ("statement_timeout", "lock_timeout"):
            (value,) = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(setting))).fetchone() or ("",)
            assert value not in {"", "0"}
