"""Migrations and tables agree, on real PostgreSQL."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from branchline.domain.config import Secret
from branchline.domain.environment import usually_inherits
from branchline.domain.errors import TimedOut
from branchline.stack.postgres import Postgres
from branchline.store import schema
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate
from branchline.store.tables import metadata

pytestmark = pytest.mark.stack


def test_the_migrations_make_the_tables(sql_store: SqlStore) -> None:
    with sql_store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _ours, "include_schemas": True})
        assert compare_metadata(context, metadata) == []


def _ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    if kind == "schema":
        return name in {None, "register"}
    return kind != "table" or parents["schema_qualified_table_name"] in metadata.tables


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


@pytest.fixture
def older(postgres_platform: Postgres) -> Iterator[sa.Engine]:
    """A database of its own, as the version before layers left it."""
    name = f"older{os.getpid()}"
    admin = connect(postgres_platform.admin_url())
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.execute(sa.text(f"CREATE DATABASE {name}"))
        url = sa.make_url(postgres_platform.admin_url().reveal()).set(database=name)
        engine = connect(Secret(url.render_as_string(hide_password=False)))
        with engine.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "0004")
            connection.commit()
        try:
            yield engine
        finally:
            engine.dispose()
            session.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def test_tables_of_a_newer_version_are_left_alone(older: sa.Engine) -> None:
    with older.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    schema.migrate(older)
    with older.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "9999"


def test_what_was_pinned_before_there_were_layers_is_still_pinned(older: sa.Engine) -> None:
    with older.begin() as connection:
        connection.execute(sa.text("INSERT INTO project (name, repository) VALUES ('shop', '/srv/shop.git')"))
        for number, (name, tier) in enumerate(
            [("develop", "nonprod"), ("staging", "nonprod"), ("login", "nonprod"), ("production", "production")], 1
        ):
            connection.execute(
                sa.text("INSERT INTO environment (project_id, name, tier, slot) VALUES (1, :name, :tier, :slot)"),
                {"name": name, "tier": tier, "slot": number},
            )
        for environment, version in ((1, 4), (4, None)):
            connection.execute(
                sa.text(
                    "INSERT INTO deployment (environment_id, ref, commit, state, actor, trigger, config_version)"
                    " VALUES (:environment, 'refs/heads/x', 'c', 'succeeded', 'ada', 'cli', :version)"
                ),
                {"environment": environment, "version": version},
            )
        connection.execute(
            sa.text("INSERT INTO stage (deployment_id, name, state, result) VALUES (1, 'prepare', 'passed', :left)"),
            {"left": '{"output": {"config_version": 4, "image": "x"}}'},
        )
    migrate(older)
    with SqlStore(older).transaction() as records:
        inherits = {one.name: one.inherits for one in records.environments.of("shop")}
        assert inherits == {name: usually_inherits(name) for name in ("develop", "staging", "login", "production")}
        assert records.deployments.get(1).config == {"shop/env/develop": 4}
        assert records.deployments.get(2).config is None
        (prepared,) = records.deployments.stages(1)
        assert prepared.result
        assert prepared.result["output"]["config"] == {"shop/env/develop": 4}


def test_when_traffic_came_and_went_is_taken_from_the_stages_of_before(older: sa.Engine) -> None:
    with older.begin() as connection:
        connection.execute(sa.text("INSERT INTO project (name, repository) VALUES ('shop', '/srv/shop.git')"))
        place = "INSERT INTO environment (project_id, name, tier, slot) VALUES (1, 'develop', 'nonprod', 1)"
        connection.execute(sa.text(place))
        for number, state in enumerate(("succeeded", "undone", "failed"), 1):
            asked = "INSERT INTO deployment (environment_id, ref, commit, state, actor, trigger)"
            connection.execute(sa.text(f"{asked} VALUES (1, 'refs/heads/x', 'c', '{state}', 'ada', 'cli')"))
            for stage in ("switch", "undo"):
                passed = "passed" if number < 3 else "failed"
                ended = "INSERT INTO stage (deployment_id, name, state, finished_at)"
                at = f"2030-01-0{number} 03:04:0{len(stage)}+00"
                connection.execute(sa.text(f"{ended} VALUES ({number}, '{stage}', '{passed}', '{at}')"))
    migrate(older)
    with SqlStore(older).transaction() as records:
        done, undone, failed = (records.deployments.get(number) for number in (1, 2, 3))
    assert done.switched_at == datetime(2030, 1, 1, 3, 4, 6, tzinfo=UTC)
    assert undone.switched_at == datetime(2030, 1, 2, 3, 4, 6, tzinfo=UTC)
    assert undone.undone_at == datetime(2030, 1, 2, 3, 4, 4, tzinfo=UTC)
    assert (done.undone_at, failed.switched_at, failed.undone_at) == (None, None, None)
    assert (done.proof, done.source, done.cancelled_by) == ("", "", None)
