"""How the register is kept: whose it is, and how far it is sealed, for the doctor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from branchline.domain.config import Secret
from branchline.store.register_schema import KEEPER, OWNER

LATE = 300.0
"""Seconds that a row may wait for its seal before the doctor says so; at least, or as many as five seals take."""

_RIGHTS = """
    SELECT rolsuper, pg_has_role(current_user, nspowner, 'USAGE')
    FROM pg_roles, pg_namespace WHERE rolname = current_user AND nspname = 'register'
"""
_UNSEALED = """
    SELECT count(*), extract(epoch FROM clock_timestamp() - min(at))::float8 FROM (
        SELECT at FROM register.event WHERE seq > coalesce((SELECT max(seq) FROM register.seal), 0)
        ORDER BY seq LIMIT 1000
    ) waiting
"""


@dataclass(frozen=True)
class State:
    """One thing about the register; a `hint` where it is not well."""

    text: str
    hint: str = ""


def look(database: Secret, seal_every: float) -> Iterator[State]:
    """What there is to say. Nothing where the database does not answer, or has no register yet."""
    try:
        with psycopg.connect(database.reveal(), autocommit=True, connect_timeout=5) as session:
            session.execute("SET statement_timeout = '10s'")
            owner = session.execute(OWNER).fetchone()
            if owner is None:
                return
            yield _walls(session, owner[0])
            yield _seals(session, seal_every)
    except psycopg.Error:
        return  # said of the database as a part


def _walls(session: psycopg.Connection, owner: str) -> State:
    superuser, owns = session.execute(_RIGHTS).fetchone() or (False, False)
    if superuser:
        text = "the platform's role is a superuser of its database: it could change the register"
        return State(text, "Give `database_url` a role of its own that owns the database and is no superuser.")
    if owns:
        text = f"its tables belong to {owner}, which the platform is: it could change them"
        hint = f"An administrator of that PostgreSQL can give them to {KEEPER}: see docs/register.md."
        return State(text, hint)
    return State(f"its tables belong to {owner}; the platform can only add to them")


def _seals(session: psycopg.Connection, seal_every: float) -> State:
    waiting, seconds = session.execute(_UNSEALED).fetchone() or (0, None)
    if not waiting:
        return State("every row is sealed")
    some = f"{waiting} rows" if waiting < 1000 else "1000 rows or more"
    if seconds is not None and seconds > max(LATE, 5 * seal_every):
        text = f"{some} wait for a seal, the oldest for {seconds / 60:.0f} min"
        return State(
            text, "The server seals them once OpenBao works and the chain is whole: `branchline audit verify`."
        )
    return State(f"sealed but for the newest ({some})")
