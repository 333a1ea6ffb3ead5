"""The register on real PostgreSQL: what the platform's role cannot do, and what even a superuser cannot hide."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors

from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import AuditEvent, Kind, Wanted
from branchline.domain.chain import hash_of
from branchline.domain.errors import PlatformBroke
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.gate import Gate
from branchline.operations.register import Audit
from branchline.operations.sealing import Sealing
from branchline.settings import Settings
from branchline.stack import first_start
from branchline.stack.part import running
from branchline.stack.postgres import PLATFORM_DATABASE, Cluster, Postgres
from branchline.store import register_schema
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate
from branchline.wire_audit import Verification
from tests.conftest import discard, new_layout
from tests.fakes.notary import FakeNotary

pytestmark = pytest.mark.stack

ADMIN = Actor("ada", "token ada", {EVERYWHERE: Role.ADMIN})


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    made = new_layout()
    yield made
    discard(made)


@pytest.fixture(scope="module")
def postgres(layout: Layout) -> Iterator[Postgres]:
    """A cluster whose register may be tampered with."""
    part = Postgres(layout, Cluster.PLATFORM, first_start.account())
    with running(part, layout.log):
        yield part


@pytest.fixture(scope="module")
def migrated(layout: Layout, postgres: Postgres) -> Iterator[SqlStore]:
    engine = connect(Endpoints(Settings(home=layout.home), layout).platform_database)
    with exclusively(engine):
        migrate(engine)
    yield SqlStore(engine)
    engine.dispose()


@pytest.fixture
def superuser(postgres: Postgres, migrated: SqlStore) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.admin_url(PLATFORM_DATABASE).reveal(), autocommit=True) as session:
        yield session


@pytest.fixture
def store(migrated: SqlStore, superuser: psycopg.Connection) -> Iterator[SqlStore]:
    """An empty register, which gets its keys back that a test took from it."""
    superuser.execute("TRUNCATE register.event, register.seal, register.incoming")
    yield migrated
    superuser.execute("TRUNCATE register.event, register.seal, register.incoming")
    superuser.execute("ALTER TABLE register.event DROP CONSTRAINT IF EXISTS event_pkey")
    superuser.execute("ALTER TABLE register.event ADD CONSTRAINT event_pkey PRIMARY KEY (seq)")


@pytest.fixture
def platform(layout: Layout, store: SqlStore) -> Iterator[psycopg.Connection]:
    """A session of the platform's own role."""
    url = Endpoints(Settings(home=layout.home), layout).platform_database.reveal()
    with psycopg.connect(url, autocommit=True) as session:
        yield session


def fill(store: SqlStore, count: int = 20, **more: Any) -> None:
    for number in range(count):
        with store.transaction() as records:
            event = AuditEvent(
                Kind.STAGE_ENDED, "ada", "shop", "develop", 3, {"number": number, **more}, "token x", "::1"
            )
            records.register.add(event)


# --- what the platform's role cannot do ------------------------------------------------------------------------------

DENIED = (errors.InsufficientPrivilege, errors.GeneratedAlways)

REFUSED = [
    "UPDATE register.event SET actor = 'nobody'",
    "UPDATE register.event SET hash = hash WHERE seq = 1",
    "DELETE FROM register.event",
    "TRUNCATE register.event",
    "TRUNCATE register.event CASCADE",
    "INSERT INTO register.event SELECT * FROM register.event",
    "MERGE INTO register.event e USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE",
    "SELECT FROM register.event FOR UPDATE",
    "DO 'BEGIN LOCK TABLE register.event IN ACCESS EXCLUSIVE MODE; END'",
    "DROP TABLE register.event",
    "ALTER TABLE register.event ADD COLUMN x int",
    "ALTER TABLE register.event ALTER COLUMN actor DROP NOT NULL",
    "ALTER TABLE register.event DROP CONSTRAINT event_pkey",
    "ALTER TABLE register.event RENAME TO other",
    "ALTER TABLE register.event SET SCHEMA public",
    "ALTER TABLE register.event ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE register.event OWNER TO branchline",
    "CREATE INDEX ON register.event (proof)",
    "DROP INDEX register.event_kind_idx",
    "CREATE RULE r AS ON INSERT TO register.event DO INSTEAD NOTHING",
    "CREATE TRIGGER t BEFORE INSERT ON register.event FOR EACH ROW EXECUTE FUNCTION add_audit_event()",
    "CREATE TRIGGER t BEFORE INSERT ON register.incoming FOR EACH ROW EXECUTE FUNCTION add_audit_event()",
    "CREATE TABLE heir () INHERITS (register.event)",
    "CREATE TABLE far (seq bigint REFERENCES register.event (seq))",
    "UPDATE register.seal SET seq = 1",
    "DELETE FROM register.seal",
    "TRUNCATE register.seal",
    "DROP TABLE register.seal",
    "INSERT INTO register.seal (id, seq, hash, at, key_version, signature) OVERRIDING SYSTEM VALUE "
    "VALUES (1, 1, '', now(), 1, '')",
    "SELECT * FROM register.incoming",
    "UPDATE register.incoming SET actor = 'nobody'",
    "DELETE FROM register.incoming",
    "TRUNCATE register.incoming",
    "DROP TABLE register.incoming",
    "INSERT INTO register.incoming (id, kind, actor, detail) OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'x', '{}')",
    "INSERT INTO register.incoming (id, kind, actor, detail) VALUES (1, 'x', 'x', '{}')",
    "ALTER TABLE register.incoming DISABLE TRIGGER ALL",
    "ALTER TABLE register.incoming DISABLE TRIGGER chain",
    "DROP TRIGGER chain ON register.incoming",
    "ALTER TRIGGER chain ON register.incoming RENAME TO other",
    "SET session_replication_role = replica",
    "SELECT register.chain()",
    "SELECT register.take_along()",
    "DROP FUNCTION register.chain() CASCADE",
    "ALTER FUNCTION register.chain() SET search_path = public",
    "ALTER FUNCTION register.chain() OWNER TO branchline",
    "CREATE OR REPLACE FUNCTION register.chain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    "CREATE FUNCTION register.other() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE TABLE register.other ()",
    "CREATE VIEW register.other AS SELECT 1",
    "DROP SCHEMA register CASCADE",
    "ALTER SCHEMA register RENAME TO other",
    "ALTER SCHEMA register OWNER TO branchline",
    "SET ROLE branchline_register",
    "SET SESSION AUTHORIZATION branchline_register",
    "SET SESSION AUTHORIZATION postgres",
    "GRANT branchline_register TO branchline",
    "ALTER ROLE branchline_register LOGIN",
    "ALTER ROLE branchline SUPERUSER",
    "DROP ROLE branchline_register",
    "DROP OWNED BY branchline_register",
    "REASSIGN OWNED BY branchline_register TO branchline",
    "ALTER DEFAULT PRIVILEGES FOR ROLE branchline_register GRANT ALL ON TABLES TO branchline",
    "COPY register.event FROM PROGRAM 'true'",
    "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION add_audit_event()",
    "SELECT lo_import('/etc/passwd')",
    "CREATE EXTENSION file_fdw",
    "ALTER SYSTEM SET allow_system_table_mods = on",
    "UPDATE pg_class SET relowner = 0 WHERE relname = 'event'",
]


SHAPE = """
    SELECT relname::text, relowner, relacl::text FROM pg_class WHERE relnamespace = 'register'::regnamespace
    UNION ALL SELECT proname::text, proowner, proacl::text FROM pg_proc WHERE pronamespace = 'register'::regnamespace
    UNION ALL SELECT tgname::text, tgrelid, tgenabled::text FROM pg_trigger WHERE tgname = 'chain'
    ORDER BY 1, 2
"""


@pytest.mark.parametrize("statement", REFUSED)
def test_refused(store: SqlStore, platform: psycopg.Connection, superuser: psycopg.Connection, statement: str) -> None:
    fill(store, 2)
    before = superuser.execute("TABLE register.event").fetchall(), superuser.execute(SHAPE).fetchall()
    with pytest.raises(DENIED):
        platform.execute(statement)
    assert (superuser.execute("TABLE register.event").fetchall(), superuser.execute(SHAPE).fetchall()) == before


@pytest.mark.parametrize(
    "statement",
    [
        "GRANT UPDATE, DELETE ON register.event TO branchline",
        "GRANT ALL ON ALL TABLES IN SCHEMA register TO branchline",
        "GRANT CREATE ON SCHEMA register TO PUBLIC",
        "REVOKE ALL ON register.event FROM branchline_register",
    ],
)
def test_without_effect(
    store: SqlStore, platform: psycopg.Connection, superuser: psycopg.Connection, statement: str
) -> None:
    """What PostgreSQL only warns of."""
    fill(store, 2)
    before = superuser.execute(SHAPE).fetchall()
    with suppress(errors.InsufficientPrivilege):
        platform.execute(statement)
    assert superuser.execute(SHAPE).fetchall() == before
    assert found(store).rows == 2


def test_the_keeper_is_nobody(platform: psycopg.Connection, superuser: psycopg.Connection) -> None:
    asked = "SELECT rolcanlogin, rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = %s"
    assert superuser.execute(asked, (register_schema.KEEPER,)).fetchone() == (False, False, False, False)
    assert superuser.execute(
        "SELECT count(*) FROM pg_auth_members WHERE roleid = %s::regrole", (register_schema.KEEPER,)
    ).fetchone() == (0,)
    owners = (
        "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = 'register'::regnamespace"
    )
    assert superuser.execute(owners).fetchall() == [(register_schema.KEEPER,)]
    owners = (
        "SELECT DISTINCT pg_get_userbyid(proowner)::text FROM pg_proc WHERE pronamespace = 'register'::regnamespace"
    )
    assert superuser.execute(owners).fetchall() == [(register_schema.KEEPER,)]


def test_what_is_owned_besides_does_not_reach_into_the_chain(
    store: SqlStore, platform: psycopg.Connection, superuser: psycopg.Connection
) -> None:
    """Functions and operators of the platform's role, in schemas that it may write, are not what the chain calls."""
    fill(store, 1)
    platform.execute("CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql RETURN '\\x00'::bytea")
    platform.execute(
        "CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql RETURN 'epoch'::timestamptz"
    )
    platform.execute("CREATE TEMP TABLE event (seq bigint, hash bytea)")
    try:
        platform.execute("SET search_path = pg_temp, public, pg_catalog")
        platform.execute("INSERT INTO register.incoming (kind, actor, detail) VALUES ('x', 'y', '{}')")
    finally:
        platform.execute("RESET search_path")
        platform.execute("DROP FUNCTION public.sha256(bytea)")
    assert found(store).faults == []
    assert superuser.execute(
        "SELECT count(*) FROM register.event WHERE at > now() - interval '1 minute'"
    ).fetchone() == (2,)


def test_number_and_time_are_the_databases(store: SqlStore, platform: psycopg.Connection) -> None:
    """Also by the view that older versions write to."""
    platform.execute(
        "INSERT INTO audit_event (id, at, kind, actor, detail) VALUES (77, '1999-01-01', 'x', 'y', '{\"a\": 1}')"
    )
    with store.transaction() as records:
        (line,) = records.register.page(Wanted(), None, 9).items
    assert (line.id, line.kind, line.detail) == (1, "x", {"a": 1})
    assert line.at.year > 2020


def test_an_older_version_goes_on_writing_and_reading(store: SqlStore) -> None:
    """With the statements that it has."""
    old = sa.Table(
        "audit_event",
        sa.MetaData(),
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        *(sa.Column(name, sa.Text) for name in ("kind", "actor", "project", "environment")),
        sa.Column("deployment", sa.BigInteger),
        sa.Column("detail", sa.dialects.postgresql.JSONB, nullable=False),
    )
    values = {"kind": "project.added", "actor": "ada", "project": "shop", "environment": None, "deployment": None}
    with store.engine.begin() as db:
        db.execute(old.insert().values(**values, detail={"a": 1}))
    with store.engine.begin() as db:
        (row,) = db.execute(sa.select(old).where(old.c.project == "shop").order_by(old.c.id.desc()).limit(9))
    assert (row.id, row.kind, row.detail) == (1, "project.added", {"a": 1})
    assert found(store).faults == []


# --- many at once ----------------------------------------------------------------------------------------------------


def test_concurrent_writers_never_fork_the_chain(store: SqlStore) -> None:
    faults: list[BaseException] = []

    def write(thread: int) -> None:
        try:
            for number in range(25):
                with store.transaction() as records:
                    for part in range(1 + number % 3):
                        detail = {"thread": thread, "number": number, "part": part}
                        records.register.add(AuditEvent(Kind.STAGE_ENDED, "ada", "shop", detail=detail))
                if number % 7 == 3:
                    with suppress(ZeroDivisionError), store.transaction() as records:
                        records.register.add(AuditEvent(Kind.STAGE_ENDED, "ada", "rolled back"))
                        _ = 1 // 0
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    verdict = found(store)
    written = 8 * sum(1 + number % 3 for number in range(25))
    assert (verdict.faults, verdict.rows, verdict.head) == ([], written, written)


def test_a_transaction_that_cannot_see_the_newest_row_fails(store: SqlStore, platform: psycopg.Connection) -> None:
    platform.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    platform.autocommit = False
    platform.execute("SELECT count(*) FROM register.event")
    fill(store, 1)
    platform.execute("INSERT INTO register.incoming (kind, actor, detail) VALUES ('x', 'y', '{}')")
    with pytest.raises(errors.UniqueViolation):
        platform.commit()
    verdict = found(store)
    assert (verdict.faults, verdict.rows) == ([], 1)


def test_nobody_waits_for_a_transaction_that_has_not_ended(store: SqlStore, platform: psycopg.Connection) -> None:
    with platform.transaction():
        platform.execute("INSERT INTO register.incoming (kind, actor, detail) VALUES ('slow', 'y', '{}')")
        fill(store, 3)
    with store.transaction() as records:
        assert [line.kind for line in records.register.page(Wanted(), None, 9).items] == ["slow", *["stage.ended"] * 3]


# --- what a superuser does is found ----------------------------------------------------------------------------------


def found(store: SqlStore, notary: FakeNotary | None = None) -> Verification:
    """What `audit verify` finds."""
    *_, last = Audit(store, Gate(store), notary or FakeNotary()).verify(ADMIN)
    assert last.done is not None
    return last.done


Tamper = Callable[[psycopg.Connection], object]


def rehash(superuser: psycopg.Connection, first: int) -> None:
    """Make hashes anew, from a row to the last."""
    (previous,) = superuser.execute("SELECT hash FROM register.event WHERE seq = %s", (first - 1,)).fetchone() or (
        bytes(32),
    )
    for seq, body in superuser.execute(
        "SELECT seq, body FROM register.event WHERE seq >= %s ORDER BY 1", (first,)
    ).fetchall():
        new = hash_of(previous, body)
        superuser.execute("UPDATE register.event SET previous = %s, hash = %s WHERE seq = %s", (previous, new, seq))
        previous = new


def rewrite_the_end(superuser: psycopg.Connection) -> None:
    edit = "UPDATE register.event SET actor = 'bob', body = replace(body, '\"ada\"', '\"bob\"') WHERE seq = 12"
    superuser.execute(edit)
    rehash(superuser, 12)


COLUMNS = "at, kind, actor, proof, source, project, environment, deployment, detail"

TAMPERED: dict[str, tuple[list[str] | Tamper, list[str]]] = {
    "an edited column": (["UPDATE register.event SET actor = 'bob' WHERE seq = 7"], ["row 7 edited"]),
    "an edited detail": (["UPDATE register.event SET detail = '{\"number\": 7}' WHERE seq = 7"], ["row 7 edited"]),
    "an edited time": (
        ["UPDATE register.event SET at = at + interval '1 microsecond' WHERE seq = 7"],
        ["row 7 edited"],
    ),
    "an edited text": (
        ["UPDATE register.event SET body = replace(body, 'ada', 'bob') WHERE seq = 7"],
        ["row 7 edited"],
    ),
    "an edited hash": (["UPDATE register.event SET hash = sha256('x') WHERE seq = 7"], ["row 7 edited"]),
    "an edited row with its hash": (
        [
            "UPDATE register.event SET actor = 'bob', body = replace(body, '\"ada\"', '\"bob\"') WHERE seq = 7",
            "UPDATE register.event SET hash = sha256(previous || convert_to(body, 'UTF8')) WHERE seq = 7",
        ],
        ["row 7 edited"],
    ),
    "a deleted row": (["DELETE FROM register.event WHERE seq = 7"], ["row 7 deleted"]),
    "deleted rows": (["DELETE FROM register.event WHERE seq BETWEEN 7 AND 9"], ["rows 7 to 9 deleted"]),
    "the first row deleted": (["DELETE FROM register.event WHERE seq = 1"], ["row 1 deleted"]),
    "an inserted row": (
        [
            "UPDATE register.event SET seq = -seq - 1 WHERE seq >= 7",
            "UPDATE register.event SET seq = -seq WHERE seq < 0",
            f"INSERT INTO register.event SELECT 7, {COLUMNS}, "
            "hash, body, sha256(hash || convert_to(body, 'UTF8')) FROM register.event WHERE seq = 6",
        ],
        ["row 7 inserted"],
    ),
    "a row inserted twice": (
        [
            "ALTER TABLE register.event DROP CONSTRAINT event_pkey",
            "INSERT INTO register.event SELECT * FROM register.event WHERE seq = 7",
        ],
        ["row 7 inserted"],
    ),
    "a row added at the end": (
        [
            f"INSERT INTO register.event SELECT 21, {COLUMNS}, "
            "sha256('x'), body, sha256('y') FROM register.event WHERE seq = 6",
        ],
        ["row 21 inserted"],
    ),
    "a row before the first": (
        [
            f"INSERT INTO register.event SELECT 0, {COLUMNS}, previous, body, hash FROM register.event WHERE seq = 1",
        ],
        ["row 0 inserted"],
    ),
    "two rows that changed places": (
        [
            "UPDATE register.event SET seq = -1 WHERE seq = 7",
            "UPDATE register.event SET seq = 7 WHERE seq = 12",
            "UPDATE register.event SET seq = 12 WHERE seq = -1",
        ],
        ["row 7 reordered", "row 12 reordered"],
    ),
    "truncated": (["DELETE FROM register.event WHERE seq > 15"], ["rows 16 to 20 truncated"]),
    "truncated to nothing": (["TRUNCATE register.event"], ["rows 1 to 20 truncated"]),
    "truncated with its seals": (
        ["DELETE FROM register.event WHERE seq > 15", "DELETE FROM register.seal WHERE seq > 10"],
        ["rows 16 to 20 truncated"],
    ),
    "everything removed": (["TRUNCATE register.event, register.seal"], ["rows 1 to 20 truncated"]),
    "the end written anew": (rewrite_the_end, ["rows 11 to 20 rewritten"]),
    "a seal with another signature": (
        ["UPDATE register.seal SET signature = sha256('x') || sha256('y') WHERE seq = 10"],
        ["row 10 forged"],
    ),
    "a seal of another row": (["UPDATE register.seal SET seq = 9 WHERE seq = 10"], ["row 9 forged"]),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_superuser_is_found_out(store: SqlStore, superuser: psycopg.Connection, name: str) -> None:
    notary = FakeNotary()
    sealing = Sealing(store, notary, 60)
    for _ in range(2):
        fill(store, 10)
        sealing.seal()
    assert found(store, notary).faults == []
    tamper, expected = TAMPERED[name]
    if callable(tamper):
        tamper(superuser)
    else:
        for statement in tamper:
            superuser.execute(statement)
    verdict = found(store, notary)
    assert [str(fault).partition(":")[0] for fault in verdict.faults] == expected


def test_what_was_noted_stays_until_the_register_leads_to_it(store: SqlStore, superuser: psycopg.Connection) -> None:
    notary = FakeNotary()
    sealing = Sealing(store, notary, 60)
    fill(store, 10)
    sealing.seal()
    superuser.execute("DELETE FROM register.event WHERE seq > 8")
    superuser.execute("TRUNCATE register.seal")
    fill(store, 5)
    with pytest.raises(PlatformBroke, match="row 10 is not what was noted"):
        sealing.seal()
    assert [(one.what, one.row, one.last) for one in found(store, notary).faults] == [("rewritten", 1, 10)]


# --- how it comes about ----------------------------------------------------------------------------------------------


@pytest.fixture
def own_database(postgres: Postgres, migrated: SqlStore) -> Iterator[Callable[[str], sa.Engine]]:
    """Databases of one role's own, as on a PostgreSQL of somebody else's."""
    made = []
    with psycopg.connect(postgres.admin_url().reveal(), autocommit=True) as admin:

        def make(name: str) -> sa.Engine:
            admin.execute(f"CREATE DATABASE {name} OWNER branchline")
            url = sa.make_url(postgres.admin_url(name).reveal()).set(drivername="postgresql+psycopg")
            engine = sa.create_engine(url)
            made.append((name, engine))

            @sa.event.listens_for(engine, "connect")
            def _as_platform(session: Any, _record: object) -> None:
                session.execute("SET SESSION AUTHORIZATION branchline")
                session.commit()

            return engine

        yield make
        for name, engine in made:
            engine.dispose()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def upgraded(engine: sa.Engine, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    from branchline.store import schema

    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


@pytest.mark.parametrize("kept", [True, False])
def test_lines_from_before_are_taken_along(
    own_database: Callable[[str], sa.Engine], postgres: Postgres, kept: bool
) -> None:
    name = f"older{'kept' if kept else 'own'}"
    engine = own_database(name)
    upgraded(engine, "0010")
    old = "INSERT INTO audit_event (at, kind, actor, proof, project, detail) VALUES ('%s', 'x.y', 'a', 'p', 's', '%s')"
    with engine.begin() as db:
        for number in range(5):
            detail = json.dumps({"n": number, "text": "ü\u2028"})
            db.exec_driver_sql(old % (f"2026-01-0{number + 1} 10:00:00.5+00", detail))
    if kept:
        with psycopg.connect(postgres.admin_url(name).reveal()) as admin:
            register_schema.entrust(admin, "branchline")
    migrate(engine)
    store = SqlStore(engine)
    with store.transaction() as records:
        lines = records.register.page(Wanted(), None, 9).items
    assert [(line.id, line.kind) for line in lines] == [(6, "register.begun"), *((n, "x.y") for n in range(5, 0, -1))]
    assert lines[0].detail == {"taken_along": 5}
    assert {line.proof for line in lines} == {"", "p"}
    assert lines[-1].at.isoformat() == "2026-01-01T10:00:00.500000+00:00"
    fill(store, 1)
    assert (found(store).faults, found(store).rows) == ([], 7)
    with engine.begin() as db, pytest.raises(sa.exc.ProgrammingError, match="the register has begun"):
        db.exec_driver_sql("SELECT register.take_along()")


def test_a_register_of_the_platforms_own_role_can_be_handed_over(
    own_database: Callable[[str], sa.Engine], postgres: Postgres
) -> None:
    """With the statements that the documentation has for an administrator."""
    engine = own_database("handed")
    migrate(engine)
    store = SqlStore(engine)
    fill(store, 3)
    with engine.begin() as db:
        db.exec_driver_sql("UPDATE register.event SET actor = 'bob' WHERE seq = 3")
    assert [fault.row for fault in found(store).faults] == [3]
    page = (Path(__file__).parents[2] / "docs" / "register.md").read_text()
    (script,) = [part.partition("```")[0] for part in page.split("```sql\n")[1:] if "OWNER TO" in part]
    with psycopg.connect(postgres.admin_url("handed").reveal(), autocommit=True) as admin:
        admin.execute(script.replace("CREATE ROLE branchline_register NOLOGIN;", ""))  # the cluster has it already
        assert admin.execute(register_schema.OWNER).fetchone() == (register_schema.KEEPER,)
    engine.dispose()
    for statement in (
        "DELETE FROM register.event",
        "ALTER TABLE register.incoming DISABLE TRIGGER chain",
        "DROP SCHEMA register CASCADE",
    ):
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"), engine.begin() as db:
            db.exec_driver_sql(statement)
    fill(store, 2)
    assert (found(store).rows, [fault.row for fault in found(store).faults]) == (6, [3])
