"""Holds deployments exactly where a test wants them, by triggers on the platform's own database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from branchline.layout import Layout
from branchline.stack import first_start
from branchline.stack.postgres import PLATFORM_DATABASE, Cluster, Postgres

_LOCKS = 0x686F6C64  # "hold"

_INSTALL = """
CREATE TABLE IF NOT EXISTS hold (project text, stage text, moment text);
CREATE OR REPLACE FUNCTION hold_stage() RETURNS trigger SECURITY DEFINER SET search_path = public AS $$
DECLARE held text;
BEGIN
  SELECT hold.project INTO held
  FROM hold
  JOIN project ON project.name = hold.project
  JOIN environment ON environment.project_id = project.id
  JOIN deployment ON deployment.environment_id = environment.id
  WHERE deployment.id = NEW.deployment_id AND hold.stage = NEW.name AND hold.moment = TG_ARGV[0];
  IF FOUND THEN
    PERFORM pg_advisory_xact_lock_shared(%(locks)s, hashtext(held));
  END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql;
DROP TRIGGER IF EXISTS hold_begin ON stage;
DROP TRIGGER IF EXISTS hold_end ON stage;
CREATE TRIGGER hold_begin BEFORE INSERT ON stage FOR EACH ROW EXECUTE FUNCTION hold_stage('begin');
CREATE TRIGGER hold_end BEFORE UPDATE OF finished_at ON stage FOR EACH ROW EXECUTE FUNCTION hold_stage('end');
"""

_WAITING = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND classid::bigint = %s AND objid = hashtext(%s)::oid AND NOT granted
"""


class Holding:
    """`begin` is the moment before a stage does anything, `end` the one when it has done all and not yet said so."""

    def __init__(self, layout: Layout) -> None:
        self._url = Postgres(layout, Cluster.PLATFORM, first_start.account()).admin_url(PLATFORM_DATABASE).reveal()
        with self._session() as db:
            db.execute(_INSTALL % {"locks": _LOCKS})

    def _session(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=5)

    @contextmanager
    def at(self, places: Sequence[tuple[str, str, str]]) -> Iterator[Held]:
        """Hold the next deployment of each (project, stage, moment) there; let all go at the end of the block."""
        with self._session() as db:
            for project, stage, moment in places:
                db.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (_LOCKS, project))
                db.execute("INSERT INTO hold VALUES (%s, %s, %s)", (project, stage, moment))
            held = Held(db, [project for project, _, _ in places])
            try:
                yield held
            finally:
                held.release()
        with self._after_its_restart() as db:
            db.execute("DELETE FROM hold WHERE project = ANY(%s)", (held.projects,))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query on the platform's own tables."""
        with self._session() as db:
            return db.execute(query.encode()).fetchall()

    def _after_its_restart(self) -> psycopg.Connection[tuple[object, ...]]:
        until = time.monotonic() + 30
        while True:
            try:
                return self._session()
            except psycopg.OperationalError:
                assert time.monotonic() < until, "the platform's database does not come back"
                time.sleep(0.1)


class Held:
    """The deployments of these projects, once `wait` has returned."""

    def __init__(self, db: psycopg.Connection[tuple[object, ...]], projects: list[str]) -> None:
        self._db = db
        self.projects = projects

    def wait(self, within: float = 90) -> None:
        """Return when every one of them is where it shall be held."""
        until = time.monotonic() + within
        left = list(self.projects)
        while left:
            left = [one for one in left if not self._db.execute(_WAITING, (_LOCKS, one)).fetchone()[0]]
            assert time.monotonic() < until, f"never held: {left}"
            time.sleep(0.02)

    def release(self) -> None:
        """Let all go on; where the database was killed, they have gone on by themselves."""
        if not self._db.closed:
            try:
                self._db.execute("SELECT pg_advisory_unlock_all()")
            except psycopg.OperationalError:
                self._db.close()
