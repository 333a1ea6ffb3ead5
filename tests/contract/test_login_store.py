"""The promises of sessions, logins under way and devices, on the fake and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from branchline.domain.errors import Conflict
from branchline.login_records import DeviceLogin, DeviceState, NewSession, PendingLogin
from branchline.records import Store
from tests.fakes.store import MemoryStore

HOUR = timedelta(hours=1)
OVER = timedelta(seconds=-1)
PENDING = PendingLogin("oidc", "/projects/shop?x=1")


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore() if request.param == "fake" else request.getfixturevalue("sql_store")


def one() -> str:
    """A digest, or a name, that nothing else has."""
    return uuid4().hex


def session(owner: str, **more: object) -> NewSession:
    return NewSession(owner, "OIDC https://id.example.com", source="192.0.2.1", agent="Browser", **more)  # type: ignore[arg-type]


def test_a_session_is_found_until_it_is_ended(store: Store) -> None:
    digest, owner, token = one(), one(), one()
    with store.transaction() as records:
        made = records.sessions.add(digest, session(owner, token=token), HOUR)
    with store.transaction() as records:
        found = records.sessions.by_digest(digest, HOUR)
        assert found is not None
        assert (found.id, found.owner, found.token, found.member) == (made.id, owner, token, None)
        assert (found.source, found.agent) == ("192.0.2.1", "Browser")
        assert timedelta(minutes=59) < found.expires_at - datetime.now(UTC) <= HOUR
        assert records.sessions.by_digest(one(), HOUR) is None
    with store.transaction() as records:
        ended = records.sessions.end(digest)
        assert ended is not None
        assert ended.id == made.id
    with store.transaction() as records:
        assert records.sessions.end(digest) is None
        assert records.sessions.by_digest(digest, HOUR) is None
        assert records.sessions.of(owner, HOUR) == []


def test_a_session_that_is_over_or_idle_is_none(store: Store) -> None:
    owner, old, idle, good = one(), one(), one(), one()
    with store.transaction() as records:
        records.sessions.add(old, session(owner), OVER)
        records.sessions.add(good, session(owner), HOUR)
        records.sessions.add(idle, session(owner), HOUR)
    with store.transaction() as records:
        assert records.sessions.by_digest(old, HOUR) is None
        assert records.sessions.by_digest(idle, OVER) is None
        assert len(records.sessions.of(owner, HOUR)) == 2
        assert records.sessions.prune(HOUR) >= 1
    with store.transaction() as records:
        assert records.sessions.end(old) is None
        assert records.sessions.end(good) is not None
        records.sessions.prune(OVER)
        assert records.sessions.end(idle) is None


def test_all_sessions_of_an_owner_end_at_once_and_no_others(store: Store) -> None:
    mine, other, digests = one(), one(), [one() for _ in range(3)]
    with store.transaction() as records:
        for digest, owner in zip(digests, (mine, mine, other), strict=True):
            records.sessions.add(digest, session(owner), HOUR)
    with store.transaction() as records:
        newest_first = [found.id for found in records.sessions.of(mine, HOUR)]
        assert newest_first == sorted(newest_first, reverse=True)
        assert records.sessions.end_all(mine) == 2
    with store.transaction() as records:
        assert records.sessions.end_all(mine) == 0
        assert len(records.sessions.of(other, HOUR)) == 1


def test_a_login_under_way_is_given_away_once(store: Store) -> None:
    digest, old = one(), one()
    with store.transaction() as records:
        records.pending_logins.add(digest, PENDING, HOUR)
        records.pending_logins.add(old, PENDING, OVER)
    with store.transaction() as records:
        assert records.pending_logins.take(digest) == PENDING
        assert records.pending_logins.take(old) is None
    with store.transaction() as records:
        assert records.pending_logins.take(digest) is None
        records.pending_logins.add(old, PENDING, OVER)
        assert records.pending_logins.prune() >= 1
        assert records.pending_logins.take(old) is None


@pytest.mark.parametrize("store", [pytest.param("postgres", marks=pytest.mark.stack)], indirect=True)
def test_of_two_who_take_a_login_at_once_one_has_it(store: Store) -> None:
    digest, had = one(), []
    with store.transaction() as records:
        records.pending_logins.add(digest, PENDING, HOUR)
    together(4, lambda: had.append(taken(store, digest)))
    assert sorted(had, key=str) == [None, None, None, PENDING]


def taken(store: Store, digest: str) -> PendingLogin | None:
    with store.transaction() as records:
        return records.pending_logins.take(digest)


def together(count: int, what: Callable[[], object]) -> None:
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait(10)
        what()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def asked(store: Store, lifetime: timedelta = HOUR) -> tuple[str, str, DeviceLogin]:
    device, user = one(), one()
    with store.transaction() as records:
        return device, user, records.device_logins.add(device, user, "branchline 1", "laptop", "192.0.2.1", lifetime)


def test_a_device_is_confirmed_and_asks_how_far_it_is(store: Store) -> None:
    device, user, made = asked(store)
    grant = {"member": 7, "projects": ["shop"]}
    with store.transaction() as records:
        assert records.device_logins.poll(device, HOUR) == (made, False)
        found = records.device_logins.by_user_code(user)
        assert found == made
        assert (made.client, made.host, made.source, made.state) == ("branchline 1", "laptop", "192.0.2.1", "asked")
        records.device_logins.decide(made, DeviceState.CONFIRMED, "ada", grant)
    with store.transaction() as records:
        assert records.device_logins.by_user_code(user) is None, "nobody decides twice"
        told, too_often = records.device_logins.poll(device, timedelta(0))
        assert told is not None
        assert (told.state, told.decided_by, told.grant, too_often) == (DeviceState.CONFIRMED, "ada", grant, False)
        records.device_logins.remove(told)
    with store.transaction() as records:
        assert records.device_logins.poll(device, HOUR) == (None, False)


def test_who_asks_too_often_has_to_wait_longer_from_then_on(store: Store) -> None:
    device, _, _ = asked(store)
    told = []
    for interval in (HOUR, HOUR, timedelta(0)):
        with store.transaction() as records:
            told.append(records.device_logins.poll(device, interval)[1])
    assert told == [False, True, True], "five seconds more, even where no others are asked for"


def test_a_device_whose_time_is_over_is_none(store: Store) -> None:
    device, user, made = asked(store, OVER)
    with store.transaction() as records:
        assert records.device_logins.by_user_code(user) is None
        assert records.device_logins.poll(device, HOUR) == (None, False)
        assert records.device_logins.prune() >= 1
        records.device_logins.remove(made)


def test_no_two_devices_show_the_same_code(store: Store) -> None:
    _, user, _ = asked(store)
    with store.transaction() as records, pytest.raises(Conflict) as caught:
        records.device_logins.add(one(), user, "branchline 1", "laptop", "192.0.2.1", HOUR)
    assert caught.value.code == "code_taken"


@pytest.mark.parametrize("store", [pytest.param("postgres", marks=pytest.mark.stack)], indirect=True)
def test_a_device_that_asks_twice_at_once_is_told_one_after_the_other(store: Store) -> None:
    device, _, made = asked(store)
    with store.transaction() as records:
        records.device_logins.decide(made, DeviceState.CONFIRMED, "ada", {})
    had: list[bool] = []

    def poll() -> None:
        with store.transaction() as records:
            found, _ = records.device_logins.poll(device, timedelta(0))
            if found is not None and not had:
                had.append(True)
                records.device_logins.remove(found)
            elif found is not None:
                had.append(False)

    together(4, poll)
    assert had == [True]
