"""Following a deployment: the stream of events, what is shown of it, and what happens when it breaks."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from branchline import wire
from branchline.cli.client import Client
from branchline.cli.credentials import Access
from branchline.cli.progress import LONGEST_LINE, Progress
from branchline.cli.watch import events, parsed, watch
from branchline.domain.config import Secret
from branchline.domain.deployment import State
from branchline.domain.errors import NotFound, PlatformBroke, Unreachable
from tests.fakes.api import TOKEN, Break, Canned, FakeApi, Pause, Sign, Story, deployment

FAILURE = wire.FailureView(
    code="unhealthy", sentence="web did not answer /healthz in 60 s.", hint="See its last output."
)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        yield server


@pytest.fixture
def client(api: FakeApi) -> Iterator[Client]:
    with Client(Access(api.url, Secret(TOKEN))) as speaking:
        yield speaking


class Utf8(io.StringIO):
    """Output that says what it can carry."""

    encoding = "utf-8"  # type: ignore[assignment]


def transcript(
    client: Client, api: FakeApi, story: Story, *, out: io.StringIO | None = None, patience: float = 5
) -> str:
    stream = out or Utf8()
    watch(client, api.add(deployment(7, State.RUNNING), story.steps), Progress(stream, patience=patience))
    return stream.getvalue()


def test_a_transcript_from_beginning_to_end(client: Client, api: FakeApi) -> None:
    story = Story()
    story.stage("checkout", "passed", note="1a2b3c4d Add the till", seconds=0.31)
    story.stage("build", "passed", "#5 [runtime 2/4] RUN pip install", "", "#5 DONE 2.1s", seconds=2.34)
    story.stage("test", "skipped", note="the manifest names no tests", seconds=0)
    story.stage("watch", "passed", seconds=61)
    story.end(deployment(7, State.SUCCEEDED, url="http://develop-shop.localhost:8080"))
    assert (
        transcript(client, api, story)
        == """\
Deployment 7: shop → develop, branch develop at 1a2b3c4d “Add the till”

✓ checkout  0.3 s  1a2b3c4d Add the till
▸ build
    #5 [runtime 2/4] RUN pip install

    #5 DONE 2.1s
✓ build     2.3 s
– test      skipped: the manifest names no tests
✓ watch     1 min 01 s

✓ Deployment 7 succeeded after 12 s: shop → develop is live.
  http://develop-shop.localhost:8080
"""
    )


@pytest.mark.parametrize(
    ("state", "more", "told"),
    [
        (
            State.FAILED,
            {"failed_stage": "verify", "failure": FAILURE},
            "✗ Deployment 7 failed at verify after 12 s: web did not answer /healthz in 60 s.\n"
            "  Hint: See its last output.\n  Its log: branchline deployments logs 7\n",
        ),
        (
            State.UNDONE,
            {"failed_stage": "watch", "failure": FAILURE},
            "✗ Deployment 7 was undone at watch after 12 s: web did not answer /healthz in 60 s.\n"
            "  Hint: See its last output.\n  Its log: branchline deployments logs 7\n",
        ),
        (
            State.BROKEN,
            {"failed_stage": "publish", "failure": FAILURE},
            "✗ Deployment 7 broke at publish after 12 s: web did not answer /healthz in 60 s.\n"
            "  The platform is at fault, not the project.\n"
            "  Hint: See its last output.\n  Its log: branchline deployments logs 7\n",
        ),
        (State.CANCELLED, {}, "✗ Deployment 7 was cancelled after 12 s.\n  Its log: branchline deployments logs 7\n"),
        (
            State.SUPERSEDED,
            {"superseded_by": 9},
            "– Deployment 7 was superseded after 12 s: a newer one takes its place.\n"
            "  Follow that one: branchline deployments logs 9 --follow\n",
        ),
    ],
)
def test_every_end_is_told(client: Client, api: FakeApi, state: State, more: dict[str, object], told: str) -> None:
    assert transcript(client, api, Story().end(deployment(7, state, **more))).endswith("\n\n" + told)


def test_a_stage_that_failed_says_so(client: Client, api: FakeApi) -> None:
    story = Story().stage("test", "failed", note="2 failed", seconds=4).stage("undo", "broke", seconds=75)
    text = transcript(client, api, story.end(deployment(7, State.FAILED)))
    assert "✗ test      failed after 4.0 s: 2 failed\n✗ undo      broke after 1 min 15 s\n" in text


def test_a_silent_stage_is_named_after_a_while_and_once(client: Client, api: FakeApi) -> None:
    story = Story().stage("build", "passed", around=Pause(0.3)).end(deployment(7, State.SUCCEEDED))
    assert "\n▸ build\n✓ build     0.5 s\n" in transcript(client, api, story, patience=0.1)


def test_output_that_cannot_carry_the_signs_gets_others(client: Client, api: FakeApi) -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"  # type: ignore[assignment]

    story = Story().stage("checkout").end(deployment(7, State.SUCCEEDED, subject=""))
    text = transcript(client, api, story, out=Ascii())
    assert "shop -> develop" in text
    assert "\n+ checkout  0.5 s\n" in text


def test_log_lines_cannot_move_the_cursor_or_colour_the_screen(client: Client, api: FakeApi) -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\x1b[1;31mred\x1b[0m\x08\x9b4m\ttab"
    story = Story().stage("build", "passed", hostile, "10%\r50%\r100%\r", "日本語 – ünïcode 🚀")
    text = transcript(client, api, story.end(deployment(7, State.SUCCEEDED)))
    assert "    red4m\ttab\n    100%\n    日本語 – ünïcode 🚀\n" in text
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in text)


def test_unicode_line_separators_do_not_break_the_stream(client: Client, api: FakeApi) -> None:
    story = Story().stage("build", "passed", "a\u2028b\x85c\x1cd\x0be").end(deployment(7, State.SUCCEEDED))
    assert "    abcde\n" in transcript(client, api, story)


def test_a_huge_line_is_cut_and_quickly_so(client: Client, api: FakeApi) -> None:
    story = Story().stage("build", "passed", "x" * 3_000_000, "after").end(deployment(7, State.SUCCEEDED))
    began = time.monotonic()
    text = transcript(client, api, story)
    assert time.monotonic() - began < 5
    assert "x" * LONGEST_LINE + "… (2996000 more characters)\n    after\n" in text


def test_a_broken_connection_is_resumed_behind_the_last_line(client: Client, api: FakeApi) -> None:
    story = Story().stage("checkout", "passed", "one")
    story.stage("build", "passed", "two", "three", around=Break(refuse=3)).stage("publish", "passed", "four")
    text = transcript(client, api, story.end(deployment(7, State.SUCCEEDED)))
    assert [text.count(word) for word in ("one", "two", "three", "four", "✓ checkout", "✓ build")] == [1] * 6
    assert text.count("The connection was lost; trying again for 60 s.") == 1
    asked = [path for _, path, _ in api.requests if "events" in path]
    assert asked == ["deployments/7/events?after=0", *["deployments/7/events?after=9"] * 4]


def test_each_break_is_told_once(client: Client, api: FakeApi) -> None:
    story = Story().stage("a", "passed", "1").then(Break(2)).stage("b", "passed", "2").then(Break(2))
    text = transcript(client, api, story.end(deployment(7, State.SUCCEEDED)))
    assert text.count("connection was lost") == 2


def test_a_platform_that_stays_away_is_given_up(client: Client, api: FakeApi) -> None:
    api.add(deployment(7), [Break(refuse=10_000)])
    told: list[str] = []
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        list(events(client, 7, told.append, patience=0.5))
    assert 0.5 < time.monotonic() - began < 4
    assert "goes on without us" in caught.value.hint
    assert len(told) == 1


def test_a_stream_that_ends_at_once_every_time_is_given_up(client: Client, api: FakeApi) -> None:
    api.add(deployment(7), [])
    with pytest.raises(Unreachable, match="keeps ending"):
        list(events(client, 7, lambda _: None, patience=0.3))


def test_what_the_platform_refuses_is_not_asked_again(client: Client, api: FakeApi) -> None:
    with pytest.raises(NotFound, match="nothing here"):
        list(events(client, 8, lambda _: None))
    assert len(api.requests) == 1


def test_a_page_where_the_stream_should_be(client: Client, api: FakeApi) -> None:
    api.canned["deployments/7/events"] = Canned(200, b"<html>hello</html>", "text/html")
    with pytest.raises(PlatformBroke) as caught:
        list(events(client, 7, lambda _: None))
    assert caught.value.code == "not_branchline"


def test_lines_arrive_as_they_are_said(client: Client, api: FakeApi) -> None:
    story = Story()
    for text in ("a", "b", "c"):
        story.line("build", text).then(Pause(0.4))
    story.end(deployment(7, State.SUCCEEDED))
    api.add(deployment(7), story.steps)
    arrived: list[float] = []
    for batch in events(client, 7, lambda _: None):
        arrived += [time.monotonic() for event in batch if event.line]
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert len(gaps) == 2
    assert all(abs(gap - 0.4) < 0.25 for gap in gaps), gaps


def test_signs_of_life_are_no_events(client: Client, api: FakeApi) -> None:
    story = Story().then(Sign()).stage("build", "passed", "one", around=Sign()).end(deployment(7, State.SUCCEEDED))
    api.add(deployment(7), story.steps)
    batches = list(events(client, 7, lambda _: None))
    assert all(batches)
    assert sum(len(batch) for batch in batches) == 4


def test_events_are_found_wherever_chunks_are_cut() -> None:
    event = wire.LogEvent(line=wire.LogLine(seq=3, at=deployment(1).requested_at, stage="build", text="ü\u2028 🚀"))
    text = (
        f": hello\r\n\r\nid: 3\r\ndata: {event.model_dump_json()}\r\n\r\nretry: 5\n\ndata:{event.model_dump_json()}\n\n"
    )
    whole = text.encode()
    for size in (1, 2, 3, 7, 50, len(whole)):
        chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert [found for batch in parsed(chunks) for found in batch] == [event, event], size


def test_several_lines_of_data_are_one_event() -> None:
    event = wire.LogEvent(end=deployment(7, State.SUCCEEDED))
    lines = event.model_dump_json(indent=1).splitlines()
    chunk = "".join(f"data: {line}\n" for line in lines) + "\n"
    assert list(parsed([chunk.encode()])) == [[event]]


def test_what_is_no_event_is_an_error_of_the_platform() -> None:
    with pytest.raises(PlatformBroke) as caught:
        list(parsed([b"data: {}}\n\n"]))
    assert caught.value.code == "not_branchline"


def test_events_of_a_newer_platform_are_understood() -> None:
    assert list(parsed([b'data: {"line": null, "weather": "fine"}\n\n'])) == [[wire.LogEvent()]]
