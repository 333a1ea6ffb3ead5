"""How often who may try: limits by address, and what the register hears of a flood."""

from __future__ import annotations

import pytest

from branchline.domain.audit import Kind
from branchline.domain.errors import TooMany
from branchline.operations.failures import MOST_LINES, WINDOW, FailedLogins
from branchline.server.attempts import DEVICES, FAILURES, Attempts
from tests.fakes.store import MemoryStore


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def exhausted(attempts: Attempts, source: str) -> None:
    for _ in range(FAILURES.amount):
        attempts.check(source)
        attempts.failed(source)


def test_too_many_failures_close_the_door_for_one_address() -> None:
    attempts = Attempts()
    exhausted(attempts, "192.0.2.1")
    with pytest.raises(TooMany) as caught:
        attempts.check("192.0.2.1", "some token")
    assert 1 <= caught.value.after <= 60
    assert (caught.value.status, caught.value.code) == (429, "too_many_attempts")
    assert str(caught.value.after) in caught.value.hint
    attempts.check("192.0.2.2")


def test_looking_costs_nothing() -> None:
    attempts = Attempts()
    for _ in range(3 * FAILURES.amount):
        attempts.check("192.0.2.1")
        attempts.succeeded("a good token")


def test_a_network_of_addresses_counts_as_one() -> None:
    attempts = Attempts()
    for number in range(FAILURES.amount):
        attempts.failed(f"2001:db8:0:1::{number:x}")
    with pytest.raises(TooMany):
        attempts.check("2001:db8:0:1:ffff::1")
    attempts.check("2001:db8:0:2::1")


def test_a_site_with_many_networks_counts_as_one_too() -> None:
    attempts = Attempts()
    for number in range(8 * FAILURES.amount):
        attempts.check(f"2001:db8:7:{number:x}::1")
        attempts.failed(f"2001:db8:7:{number:x}::1")
    with pytest.raises(TooMany) as caught:
        attempts.check("2001:db8:7:ffff::1")
    assert 1 <= caught.value.after <= 60
    attempts.check("2001:db8:8::1")
    for number in range(8 * DEVICES.amount):
        attempts.spend(DEVICES, f"2001:db8:9:{number:x}::1")
    with pytest.raises(TooMany):
        attempts.spend(DEVICES, "2001:db8:9:ffff::1")


def test_a_flood_from_everywhere_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchline.server.attempts._MOST_SOURCES", 200)
    attempts = Attempts()
    for number in range(5000):
        attempts.failed(f"10.{number // 250}.{number % 250}.1")
        assert attempts.sources <= 202
    exhausted(attempts, "192.0.2.1")
    with pytest.raises(TooMany):
        attempts.check("192.0.2.1")


def test_who_was_let_in_lately_is_not_locked_out_by_a_neighbour() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    attempts.succeeded("good")
    exhausted(attempts, "192.0.2.1")
    attempts.check("192.0.2.1", "good")
    with pytest.raises(TooMany):
        attempts.check("192.0.2.1", "guess")
    with pytest.raises(TooMany):
        attempts.check("192.0.2.1")
    clock.now += 3601
    with pytest.raises(TooMany):
        attempts.check("192.0.2.1", "good")


def test_each_kind_of_attempt_has_a_limit_of_its_own() -> None:
    attempts = Attempts()
    for _ in range(DEVICES.amount):
        attempts.spend(DEVICES, "192.0.2.1")
    with pytest.raises(TooMany):
        attempts.spend(DEVICES, "192.0.2.1")
    attempts.check("192.0.2.1")
    attempts.spend(DEVICES, "192.0.2.2")


# --- the register ----------------------------------------------------------------------------------------------------


def lines(store: MemoryStore) -> list[tuple[str, dict[str, object]]]:
    events = [event for _, event in store.tables.events]
    assert {event.kind for event in events} <= {Kind.LOGIN_FAILED}
    return [(event.source, event.detail) for event in events]


def test_a_source_has_one_line_a_minute() -> None:
    store, clock = MemoryStore(), Clock()
    failures = FailedLogins(store, clock)
    for _ in range(500):
        failures.note("token", "unauthenticated", "192.0.2.1")
    failures.note("oidc", "login_over", "192.0.2.2", "ada")
    first = ("192.0.2.1", {"method": "token", "code": "unauthenticated"})
    assert lines(store) == [first, ("192.0.2.2", {"method": "oidc", "code": "login_over", "called": "ada"})]
    assert {event.actor for _, event in store.tables.events} == {"(nobody)"}
    clock.now += WINDOW
    failures.note("token", "unauthenticated", "192.0.2.1")
    failures.note("token", "unauthenticated", "192.0.2.1")
    assert lines(store)[2:] == [("192.0.2.1", {"method": "token", "code": "unauthenticated", "untold": 499})]
    clock.now += WINDOW
    failures.note("token", "unauthenticated", "192.0.2.1")
    assert lines(store)[-1][1]["untold"] == 1


def test_a_flood_from_everywhere_does_not_fill_the_register() -> None:
    store, clock = MemoryStore(), Clock()
    failures = FailedLogins(store, clock)
    for number in range(1000):
        failures.note("token", "unauthenticated", f"10.0.{number // 250}.{number % 250}")
    assert len(lines(store)) == MOST_LINES
    clock.now += WINDOW
    failures.note("token", "unauthenticated", "10.0.3.249")
    assert lines(store)[-1] == ("10.0.3.249", {"method": "token", "code": "unauthenticated", "untold": 1})
