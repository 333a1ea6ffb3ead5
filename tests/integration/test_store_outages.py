"""The platform's own database frozen, or without room: callers are told so in time, and go on when that is over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.errors import PlatformBroke
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import first_start
from branchline.stack.part import Running
from branchline.stack.postgres import PLATFORM_DATABASE, Cluster, Postgres
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate
from tests.conftest import discard, new_layout
from tests.full import small_disk

pytestmark = pytest.mark.stack

GIVEN_UP = 9.5
"""Seconds after which whoever asks a frozen database is told."""


@pytest.fixture
def layout() -> Iterator[Layout]:
    made = new_layout()
    yield made
    discard(made)


@pytest.fixture
def alone(layout: Layout) -> Iterator[Running]:
    """A cluster that nobody else uses."""
    part = Running(Postgres(layout, Cluster.PLATFORM, first_start.account()), layout.log / "postgres.log")
    yield part.start()
    part.stop()


def store_of(layout: Layout) -> SqlStore:
    engine = connect(Endpoints(Settings(home=layout.home), layout).platform_database)
    with exclusively(engine):
        migrate(engine)
    return SqlStore(engine)


def write(store: SqlStore) -> None:
    with store.transaction() as records:
        records.register.add(AuditEvent(Kind.DEPLOYMENT_REQUESTED, "ada", "shop", "develop", None, {"word": "x" * 900}))


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(PlatformBroke) as caught:
        work()
    assert caught.value.hint
    assert caught.value.passing
    return caught.value.code


def test_a_frozen_database_is_given_up_in_time(layout: Layout, alone: Running) -> None:
    store = store_of(layout)
    write(store)
    assert alone.process
    server = psutil.Process(alone.process.identity.pid)
    family = [server, *server.children()]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(20) as pool:  # more than the pool has connections
            codes = list(pool.map(lambda _: code_of(lambda: write(store)), range(20)))
        assert time.monotonic() - began < 2 * GIVEN_UP
        assert set(codes) == {"store_unreachable"}
        began = time.monotonic()
        assert code_of(store.ping) == "store_unreachable"
        assert time.monotonic() - began < GIVEN_UP
    finally:
        for one in family:
            one.send_signal(signal.SIGCONT)
    write(store)


def test_a_database_without_room_says_so_and_goes_on_when_there_is_some(layout: Layout) -> None:
    with small_disk(layout.home / "postgres", "200M") as disk:
        postgres = Postgres(layout, Cluster.PLATFORM, first_start.account())
        part = Running(postgres, layout.log / "postgres.log").start()
        try:
            store = store_of(layout)
            disk.fill()
            # Either its tables find no room, or its journal: then it has ended.
            assert code_of(lambda: [write_much(store) for _ in range(200)]) in {"store_full", "store_unreachable"}
            disk.empty()
            if part.process and part.process.wait(0.5):
                part.start()
            write(store)
        finally:
            part.stop()


def test_no_room_is_told_from_no_answer(sql_store: SqlStore, postgres_platform: Postgres) -> None:
    refuse = """
        CREATE FUNCTION refuse() RETURNS trigger AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$
        LANGUAGE plpgsql;
        CREATE TRIGGER refuse BEFORE INSERT ON register.event FOR EACH ROW EXECUTE FUNCTION refuse();
    """
    with postgres_platform.connection(PLATFORM_DATABASE) as superuser:
        superuser.execute(refuse)
    try:
        assert code_of(lambda: write(sql_store)) == "store_full"
    finally:
        with postgres_platform.connection(PLATFORM_DATABASE) as superuser:
            superuser.execute("DROP FUNCTION refuse CASCADE")
    write(sql_store)


def write_much(store: SqlStore) -> None:
    with store.transaction() as records:
        for _ in range(200):
            detail = {"word": os.urandom(4000).hex()}
            records.register.add(AuditEvent(Kind.DEPLOYMENT_REQUESTED, "ada", "shop", "develop", None, detail))
