"""The worker ships what was placed."""

import os
import time

import pytest

from catalogue import orders
from catalogue.management.commands.work import Command
from catalogue.models import Order
from shop import heartbeat


@pytest.fixture(autouse=True)
def heartbeat_file(tmp_path, monkeypatch):
    """A heartbeat of the test's own."""
    monkeypatch.setattr(heartbeat, "FILE", tmp_path / "heartbeat")
    return heartbeat.FILE


def test_the_oldest_order_is_shipped_first(mug):
    first, second = orders.place(mug, 1), orders.place(mug, 2)
    assert Command().turn() is True
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == (Order.Status.SHIPPED, Order.Status.PLACED)
    assert first.shipped_at >= first.placed_at


def test_an_order_is_shipped_once(mug):
    orders.place(mug, 1)
    assert [Command().turn(), Command().turn()] == [True, False]


def test_each_turn_is_a_sign_of_life(db, heartbeat_file):
    assert heartbeat.age() == float("inf")
    Command().turn()
    assert heartbeat.age() < heartbeat.MAX_AGE
    long_ago = time.time() - 60
    os.utime(heartbeat_file, (long_ago, long_ago))
    assert heartbeat.age() > heartbeat.MAX_AGE
