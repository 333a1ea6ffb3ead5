"""Following a deployment over HTTP: nothing is missed, nothing comes twice, and it ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from branchline.domain.access import Role
from branchline.domain.deployment import State
from branchline.domain.errors import PlatformBroke
from branchline.domain.pipeline import Stage, StageState
from branchline.server import auth, events
from branchline.wire import LogEvent
from tests.fakes.platform import COMMIT, FakePlatform
from tests.integration.served import Journal, client, eventually, recorded, served


@pytest.fixture
def platform() -> FakePlatform:
    platform = FakePlatform()
    platform.repositories["shop"] = "/srv/shop.git"
    platform.deployed("shop", "develop", "refs/heads/develop", COMMIT, state=State.RUNNING)
    return platform


@pytest.fixture
def journal() -> Iterator[Journal]:
    with recorded() as made:
        yield made


@pytest.fixture
def url(platform: FakePlatform, journal: Journal) -> Iterator[str]:
    with served(platform) as url:
        yield url


class Followed:
    """A stream as a client reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self.ids: list[int] = []

    def __iter__(self) -> Iterator[LogEvent]:
        for line in self.response.iter_lines():
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("id: "):
                self.ids.append(int(line[4:]))
            elif line.startswith("data: "):
                yield LogEvent.model_validate_json(line[6:])


@contextmanager
def following(url: str, number: int = 1, role: Role = Role.VIEWER, **more: object) -> Iterator[Followed]:
    with client(url, role) as api, api.stream("GET", f"/api/v1/deployments/{number}/events", **more) as response:  # type: ignore[arg-type]
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield Followed(response)


def texts(told: list[LogEvent]) -> list[str]:
    return [one.line.text for one in told if one.line]


def test_a_whole_story_in_its_order(url: str, platform: FakePlatform) -> None:
    start = datetime.now(UTC)
    platform.stage(1, Stage.BUILD, seconds=5, began=start)
    platform.say(1, "build", "b1", "b2", at=start + timedelta(seconds=2))
    platform.stage(1, Stage.TEST, StageState.FAILED, seconds=5, began=start + timedelta(seconds=5))
    platform.say(1, "test", "t1", at=start + timedelta(seconds=6))
    platform.finish(1, State.FAILED)
    with following(url) as stream:
        told = list(stream)
    words = [one.line.text if one.line else one.stage.name if one.stage else "end" for one in told]
    assert words == ["b1", "b2", "build", "t1", "test", "end"]
    assert told[-1].end
    assert told[-1].end.state is State.FAILED
    assert stream.ids == [3, 6, 9]


def test_what_happens_is_told_at_once(url: str, platform: FakePlatform) -> None:
    delays = []

    def act() -> None:
        for number in range(12):
            time.sleep(0.11)
            platform.say(1, "build", f"{number} {time.time()}")
        platform.stage(1, Stage.BUILD, seconds=1)
        platform.finish(1, State.SUCCEEDED)

    with following(url) as stream:
        actor = threading.Thread(target=act)
        actor.start()
        told = []
        for event in stream:
            if event.line:
                delays.append(time.time() - float(event.line.text.split()[1]))
            told.append(event)
        actor.join()
    assert [text.split()[0] for text in texts(told)] == [str(number) for number in range(12)]
    assert any(one.stage and one.stage.state is StageState.PASSED for one in told)
    assert sorted(delays)[len(delays) // 2] < 0.2


def test_a_stage_is_told_when_it_changes_and_only_then(url: str, platform: FakePlatform) -> None:
    platform.stage(1, Stage.BUILD, StageState.RUNNING)
    with following(url) as stream:
        told = iter(stream)
        assert next(told).stage
        platform.say(1, "build", "one")
        assert next(told).line
        platform.stage(1, Stage.BUILD, StageState.PASSED, seconds=1)
        changed = next(told).stage
        assert changed
        assert changed.state is StageState.PASSED
        platform.finish(1, State.SUCCEEDED)
        assert next(told).end


@pytest.mark.parametrize("how", ["after", "header", "both"])
def test_going_on_after_a_line(url: str, platform: FakePlatform, how: str) -> None:
    platform.say(1, "build", *map(str, range(2000)))
    platform.finish(1, State.SUCCEEDED)
    seen = platform.logs[1][1234].seq
    more: dict[str, object] = {"params": {"after": seen if how == "after" else 9 if how == "both" else 0}}
    if how != "after":
        more["headers"] = {"Last-Event-ID": str(seen)}
    with following(url, **more) as stream:
        told = list(stream)
    assert texts(told) == [str(number) for number in range(1235, 2000)]
    assert told[-1].end


@pytest.mark.parametrize("remembered", ["", "x", "-1", "1" * 40, "²"])
def test_a_memory_that_makes_no_sense_counts_for_nothing(remembered: str) -> None:
    assert events.resume_after(remembered, 7) == 7


def test_a_line_that_never_was_spoils_nothing_for_others(url: str, platform: FakePlatform) -> None:
    platform.say(1, "build", "one", "two")
    with following(url, params={"after": 4_000}), following(url) as honest:
        told = iter(honest)
        assert texts([next(told), next(told)]) == ["one", "two"]
        platform.say(1, "build", "three")
        assert texts([next(told)]) == ["three"]
        platform.finish(1, State.SUCCEEDED)
        assert next(told).end


def test_long_logs_come_whole(url: str, platform: FakePlatform) -> None:
    platform.say(1, "build", *map(str, range(20_000)))
    platform.finish(1, State.SUCCEEDED)
    with following(url) as stream:
        assert texts(list(stream)) == [str(number) for number in range(20_000)]


def test_many_follow_with_one_poll(url: str, platform: FakePlatform) -> None:
    def read(late: float) -> list[str]:
        time.sleep(late)
        with following(url) as stream:
            return texts(list(stream))

    with ThreadPoolExecutor(20) as pool:
        all_of_them = [pool.submit(read, late * 0.05) for late in range(20)]
        for number in range(40):
            platform.say(1, "build", *(f"{number}.{part}" for part in range(40)))
            time.sleep(0.05)
        time.sleep(0.5)
        platform.calls.clear()
        time.sleep(1)
        looks = platform.calls.count("deployments.log")
        platform.finish(1, State.SUCCEEDED)
        expected = [f"{number}.{part}" for number in range(40) for part in range(40)]
        assert all(one.result(10) == expected for one in all_of_them)
    assert 3 <= looks <= 8, "twenty followers cost as much as one"


def test_polling_ends_with_the_last_follower(url: str, platform: FakePlatform, journal: Journal) -> None:
    with following(url) as stream:
        platform.say(1, "build", "x")
        assert next(iter(stream)).line
    eventually(lambda: any(line["event"] == "request" and "events" in line["route"] for line in journal.lines))
    time.sleep(0.3)
    platform.calls.clear()
    time.sleep(0.5)
    assert platform.calls == []
    assert not [line for line in journal.lines if line["level"] != "info"]


def test_signs_of_life(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.3)
    with following(url) as stream:
        lines = stream.response.iter_lines()
        while not next(lines).startswith(":"):
            pass


@pytest.mark.parametrize("by", ["token", "session"])
def test_who_is_shut_out_hears_no_more(
    url: str, platform: FakePlatform, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.2)
    monkeypatch.setattr(auth, "LOOK_AGAIN", 0.1)
    with client(url, Role.VIEWER if by == "token" else None) as one:
        if by == "session":
            one.post("/login", data={"token": "bl_viewer"}, headers={"Origin": url})
        where = "/api/v1/deployments/1/events" if by == "token" else "/deployments/1/events"
        with one.stream("GET", where) as response:
            told = iter(Followed(response))
            platform.say(1, "build", "before")
            assert next(event for event in told if event.line).line
            if by == "token":
                del platform.known_tokens["viewer"]
            else:
                platform.sessions.end_mine(platform.tokens.authenticate("bl_viewer"))
            time.sleep(0.3)
            platform.say(1, "build", "after")
            assert list(told) == [], "it ends, without the end of the deployment"


def test_the_database_away_for_a_moment(url: str, platform: FakePlatform) -> None:
    platform.say(1, "build", "before")
    with following(url) as stream:
        told = iter(stream)
        assert next(told).line
        platform.faults["deployments.log"] = PlatformBroke("The database does not answer.")
        time.sleep(0.5)
        platform.say(1, "build", "meanwhile")
        platform.finish(1, State.SUCCEEDED)
        del platform.faults["deployments.log"]
        assert texts([next(told)]) == ["meanwhile"]
        assert next(told).end


def test_the_database_away_for_long(
    url: str, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr(events, "PATIENCE", 0.2)
    with following(url) as stream:
        platform.faults["deployments.log"] = PlatformBroke("The database does not answer.")
        assert list(stream) == [], "the stream closes without an end, and the client asks again"
    assert any(line["event"] == "following_given_up" for line in journal.lines)
    platform.faults.clear()
    platform.finish(1, State.SUCCEEDED)
    with following(url) as stream:
        assert list(stream)[-1].end


def test_errors_come_before_the_stream(url: str, platform: FakePlatform) -> None:
    with client(url) as api:
        answer = api.get("/api/v1/deployments/77/events")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_deployment")
        platform.faults["deployments.show"] = PlatformBroke("Away.")
        assert api.get("/api/v1/deployments/1/events").status_code == 503


def test_a_client_that_vanishes(url: str, platform: FakePlatform) -> None:
    host, port = httpx.URL(url).host, httpx.URL(url).port
    connection = socket.create_connection((host, port or 0))
    connection.sendall(
        b"GET /api/v1/deployments/1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bl_admin\r\n\r\n"
    )
    assert b"200 OK" in connection.recv(4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()
    eventually(lambda: _quiet(platform))


def _quiet(platform: FakePlatform) -> bool:
    platform.calls.clear()
    time.sleep(0.4)
    return not platform.calls


def test_a_client_that_does_not_read_holds_up_nobody(url: str, platform: FakePlatform) -> None:
    host, port = httpx.URL(url).host, httpx.URL(url).port
    with socket.create_connection((host, port or 0)) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"GET /api/v1/deployments/1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bl_admin\r\n\r\n")
        platform.say(1, "build", *("x" * 2000 for _ in range(3000)))
        platform.finish(1, State.SUCCEEDED)
        with following(url) as stream:
            assert len(texts(list(stream))) == 3000


def test_streams_end_when_the_server_stops(platform: FakePlatform, journal: Journal) -> None:
    ended: list[float] = []

    def read(url: str) -> None:
        with following(url) as stream:
            list(stream)
        ended.append(time.monotonic())

    with served(platform) as url:
        readers = [threading.Thread(target=read, args=(url,)) for _ in range(5)]
        for one in readers:
            one.start()
        eventually(lambda: "deployments.log" in platform.calls)
        time.sleep(0.3)
        asked = time.monotonic()
    stopped = time.monotonic()
    for one in readers:
        one.join(5)
    assert len(ended) == 5
    assert stopped - asked < 2
    assert not [line for line in journal.lines if line["level"] == "error"], json.dumps(journal.lines)
