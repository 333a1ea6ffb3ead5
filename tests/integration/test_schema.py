"""Migrations and tables agree, on real PostgreSQL."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from branchline.domain.errors import TimedOut
from branchline.store.database import SqlStore
from branchline.store.schema import exclusively, migrate
from branchline.store.tables import metadata

pytestmark = pytest.mark.stack


def test_the_migrations_make_the_tables(sql_store: SqlStore) -> None:
    with sql_store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _ours})
        assert compare_metadata(context, metadata) == []


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in metadata.tables


def test_processes_that_start_together_migrate_once(sql_store: SqlStore) -> None:
    faults: list[BaseException] = []

    def start() -> None:
        try:
            with exclusively(sql_store.engine):
                migrate(sql_store.engine)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_nobody_waits_for_ever_for_a_process_that_hangs_while_it_migrates(sql_store: SqlStore) -> None:
    def wait() -> None:
        with exclusively(sql_store.engine, patience=0.3):
            pytest.fail("two change the schema at once")

    with exclusively(sql_store.engine), pytest.raises(TimedOut) as late:
        wait()
    assert late.value.hint
