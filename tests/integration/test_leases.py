"""Leases on real PostgreSQL: how runners know who of them lives."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import pytest

from branchline.store.database import SqlStore
from branchline.store.leases import Lease

pytestmark = pytest.mark.stack


def test_a_lease_ends_with_its_session(sql_store: SqlStore) -> None:
    mine, other = uuid4().hex, uuid4().hex
    watcher, holder = Lease(sql_store.engine, mine), Lease(sql_store.engine, other)
    assert holder.held()
    assert not watcher.dead(other)
    with sql_store.engine.connect() as db:
        db.exec_driver_sql(f"SELECT pg_terminate_backend({holder.session})")
    assert not holder.held()
    assert watcher.dead(other)
    watcher.bury(other)
    assert watcher.dead(other)


def test_the_server_notices_a_host_that_vanished(sql_store: SqlStore) -> None:
    holder = Lease(sql_store.engine, uuid4().hex)
    told = {
        name: holder._db.execute(f"SHOW {name}").fetchone()[0]
        for name in ("tcp_keepalives_idle", "tcp_keepalives_count", "tcp_user_timeout")
    }
    assert told == {"tcp_keepalives_idle": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "5000"}


def test_a_lease_that_falls_silent_is_ended_by_others(sql_store: SqlStore) -> None:
    silent, lively, watcher = uuid4().hex, uuid4().hex, Lease(sql_store.engine, uuid4().hex, silence=1.5)
    paused, beating = Lease(sql_store.engine, silent), Lease(sql_store.engine, lively)
    lost = threading.Event()
    beating.keep(lost=lost.set)
    limit = time.monotonic() + 10
    while not watcher.dead(silent):
        assert not watcher.dead(lively)
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert not paused.held()
    assert beating.held()
    assert not lost.is_set()
    with sql_store.engine.connect() as db:
        db.exec_driver_sql(f"SELECT pg_terminate_backend({beating.session})")
    assert lost.wait(5)
