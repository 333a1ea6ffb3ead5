"""The register's schema and who owns it: a role that nobody is, so that the platform can add lines and nothing else.

On the embedded PostgreSQL its superuser makes the schema and gives it to the keeper at each start of the platform. On
another one the first migration makes it, for the platform's own role; an administrator hands it over with the same
statements (docs/register.md).

MAKE is what migration 0011 found or made, and is never changed: what comes later is a step of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

KEEPER = "branchline_register"

EXISTS = "SELECT to_regclass('register.event') IS NOT NULL"

OWNER = "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'register'"

_BODY = """jsonb_build_object('at', to_char(made.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'id', made.seq, 'kind', made.kind, 'actor', made.actor, 'proof', made.proof, 'source', made.source,
    'project', made.project, 'environment', made.environment, 'deployment', made.deployment,
    'detail', made.detail)::text"""
"""The text of a row, in the canonical form that docs/register.md describes."""

_ADDED = "kind, actor, proof, source, project, environment, deployment, detail"

MAKE = (
    """
    CREATE TABLE register.event (
        seq bigint NOT NULL CONSTRAINT event_pkey PRIMARY KEY,
        at timestamptz NOT NULL,
        kind text NOT NULL,
        actor text NOT NULL,
        proof text NOT NULL,
        source text NOT NULL,
        project text,
        environment text,
        deployment bigint,
        detail jsonb NOT NULL,
        previous bytea NOT NULL,
        body text NOT NULL,
        hash bytea NOT NULL
    )
    """,
    "CREATE INDEX event_at_idx ON register.event (at)",
    "CREATE INDEX event_project_idx ON register.event (project, seq)",
    "CREATE INDEX event_environment_idx ON register.event (environment, seq)",
    "CREATE INDEX event_actor_idx ON register.event (actor, seq)",
    "CREATE INDEX event_kind_idx ON register.event (kind, seq)",
    """
    CREATE TABLE register.incoming (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT incoming_pkey PRIMARY KEY,
        kind text NOT NULL,
        actor text NOT NULL,
        proof text NOT NULL DEFAULT '',
        source text NOT NULL DEFAULT '',
        project text,
        environment text,
        deployment bigint,
        detail jsonb NOT NULL
    )
    """,
    """
    CREATE TABLE register.seal (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT seal_pkey PRIMARY KEY,
        seq bigint NOT NULL,
        hash bytea NOT NULL,
        at timestamptz NOT NULL,
        key_version integer NOT NULL,
        signature bytea NOT NULL
    )
    """,
    "CREATE INDEX seal_seq_idx ON register.seal (seq)",
    # The lock lasts for the rest of a commit. Whoever waited for it sees what the one before wrote; a transaction that
    # could not (REPEATABLE READ) fails at the primary key: the chain never forks.
    f"""
    CREATE FUNCTION register.chain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        made register.event;
    BEGIN
        PERFORM pg_advisory_xact_lock(8243108395577795954);
        SELECT seq + 1, hash INTO made.seq, made.previous FROM register.event ORDER BY seq DESC LIMIT 1;
        made.seq := coalesce(made.seq, 1);
        made.previous := coalesce(made.previous, decode(repeat('00', 32), 'hex'));
        made.at := clock_timestamp();
        made.kind := NEW.kind;
        made.actor := NEW.actor;
        made.proof := NEW.proof;
        made.source := NEW.source;
        made.project := NEW.project;
        made.environment := NEW.environment;
        made.deployment := NEW.deployment;
        made.detail := NEW.detail;
        made.body := {_BODY};
        made.hash := sha256(made.previous || convert_to(made.body, 'UTF8'));
        INSERT INTO register.event SELECT made.*;
        DELETE FROM register.incoming WHERE id = NEW.id;
        RETURN NULL;
    END $$
    """,  # noqa: S608 our own words
    "REVOKE ALL ON FUNCTION register.chain() FROM PUBLIC",
    """
    CREATE CONSTRAINT TRIGGER chain AFTER INSERT ON register.incoming DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION register.chain()
    """,
    # The lines from before there was a chain keep their times, and come in once: as the first rows, or not at all.
    f"""
    CREATE FUNCTION register.take_along() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        old record;
        made register.event;
        taken bigint := 0;
    BEGIN
        PERFORM pg_advisory_xact_lock(8243108395577795954);
        IF EXISTS (SELECT FROM register.event) THEN
            RAISE EXCEPTION 'the register has begun' USING ERRCODE = 'insufficient_privilege';
        END IF;
        made.previous := decode(repeat('00', 32), 'hex');
        FOR old IN SELECT * FROM public.audit_event ORDER BY id LOOP
            taken := taken + 1;
            made.seq := taken;
            made.at := old.at;
            made.kind := old.kind;
            made.actor := old.actor;
            made.proof := old.proof;
            made.source := old.source;
            made.project := old.project;
            made.environment := old.environment;
            made.deployment := old.deployment;
            made.detail := old.detail;
            made.body := {_BODY};
            made.hash := sha256(made.previous || convert_to(made.body, 'UTF8'));
            INSERT INTO register.event SELECT made.*;
            made.previous := made.hash;
        END LOOP;
        INSERT INTO register.incoming ({_ADDED}) VALUES
            ('register.begun', 'platform', '', '', NULL, NULL, NULL, jsonb_build_object('taken_along', taken));
        RETURN taken;
    END $$
    """,  # noqa: S608
    "REVOKE ALL ON FUNCTION register.take_along() FROM PUBLIC",
)
"""Makes the tables in a schema `register` that is there and empty, for whoever runs it."""

HAND_OVER = (
    f"ALTER SCHEMA register OWNER TO {KEEPER}",
    f"ALTER TABLE register.event OWNER TO {KEEPER}",
    f"ALTER TABLE register.incoming OWNER TO {KEEPER}",
    f"ALTER TABLE register.seal OWNER TO {KEEPER}",
    f"ALTER FUNCTION register.chain() OWNER TO {KEEPER}",
    f"ALTER FUNCTION register.take_along() OWNER TO {KEEPER}",
)

GRANT = (
    "REVOKE ALL ON SCHEMA register FROM {platform}",
    "REVOKE ALL ON ALL TABLES IN SCHEMA register FROM {platform}",
    "GRANT USAGE ON SCHEMA register TO {platform}",
    "GRANT SELECT ON register.event, register.seal TO {platform}",
    f"GRANT INSERT ({_ADDED}) ON register.incoming TO {{platform}}",
    "GRANT INSERT (seq, hash, at, key_version, signature) ON register.seal TO {platform}",
    "GRANT EXECUTE ON FUNCTION register.take_along() TO {platform}",
)
"""All that the platform's role may do there, once the schema is the keeper's."""


class Session(Protocol):
    """Somebody's session in the platform's database; of psycopg, or like it."""

    def execute(self, query: Any, /) -> Any: ...


def entrust(superuser: Session, platform: str) -> None:
    """Make the schema and give it to the keeper, or take it from the platform's role; to be called in a transaction.

    Does nothing where it is the keeper's. `platform` is that role's name, as SQL writes it.
    """
    if superuser.execute(OWNER).fetchone() == (KEEPER,):
        return
    if not superuser.execute(f"SELECT FROM pg_roles WHERE rolname = '{KEEPER}'").rowcount:
        superuser.execute(f"CREATE ROLE {KEEPER} NOLOGIN")
    (there,) = superuser.execute(EXISTS).fetchone()
    if there:
        for statement in HAND_OVER:
            superuser.execute(statement)
    else:
        superuser.execute(f"CREATE SCHEMA register AUTHORIZATION {KEEPER}")
        superuser.execute(f"SET LOCAL ROLE {KEEPER}")
        for statement in MAKE:
            superuser.execute(statement)
        superuser.execute("RESET ROLE")
    for statement in GRANT:
        superuser.execute(statement.format(platform=platform))
