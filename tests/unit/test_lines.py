"""Streams become the same lines, however they were cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline.adapters.lines import Lines
from branchline.domain.printable import printable


def split(*chunks: bytes, limit: int = 100) -> list[str]:
    lines = Lines(limit)
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    return [*found, *lines.close()]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"one\ntwo"], ["one", "two"]),
        ([b"o", b"ne", b"\n"], ["one"]),
        ([b"one\r\ntwo\r\n"], ["one", "two"]),
        ([b"one\r", b"\ntwo"], ["one", "two"]),
        ([b"one\r", b"two"], ["one", "two"]),
        ([b"one\n\n\ntwo\n"], ["one", "", "", "two"]),
        ([b"\r 10%\r 20%\r\n"], [" 10%", " 20%"]),
        ([b"\r\n"], [""]),
        ([b"\r", b"\n"], [""]),
        ([b"a\x0bb\x0cc\x1cd"], ["abcd"]),
        ([b"caf\xc3", b"\xa9\n"], ["café"]),
        ([b"caf\xe9\n"], ["caf�"]),
        ([b"\x1b[1;31mred\x1b[0m\tand\x00 plain\x1b]0;title\x07\n"], ["red\tand plain"]),
        ([b"a\x1b]52;c;never ended\n", b"b\n"], ["a", "b"]),
        ([b"a\x1b[31\n", b"mb\x1b[3\xc3\xa9\n"], ["a", "mb[3é"]),
        ([], []),
    ],
)
def test_lines(chunks: list[bytes], expected: list[str]) -> None:
    assert split(*chunks) == expected


def test_a_long_line_is_cut_and_says_so() -> None:
    assert split(b"x" * 99 + b"\n" + b"y" * 150 + b"\nz") == ["x" * 99, "y" * 99 + "… [51 more bytes]", "z"]


def test_no_half_of_an_escape_sequence_stays_before_a_cut() -> None:
    assert split(b"key\x1b[31;1mred", limit=8) == ["key… [6 more bytes]"]


@given(st.text(alphabet="\x1b[]0;mé \x07\\\x01\n"), st.integers(0, 30))
def test_what_a_log_shows_of_a_beginning_begins_what_it_shows_of_all(text: str, size: int) -> None:
    assert printable(text).startswith(printable(text[:size]))


def test_a_long_line_is_not_kept_in_memory() -> None:
    lines = Lines(limit=1000)
    for _ in range(10_000):
        assert list(lines.feed(b"x" * 10_000)) == []
    assert len(lines._kept) == 1000
    assert next(lines.close()).endswith("… [99999001 more bytes]")


def test_no_character_is_cut_in_two() -> None:
    line = split("ö".encode() * 100, limit=101)[0]
    assert line == "ö" * 50 + "… [100 more bytes]"


@given(st.binary(max_size=300).map(lambda b: b.translate(bytes(range(256)).replace(b"a", b"\n").replace(b"b", b"\r"))))
def test_any_bytes_become_lines(data: bytes) -> None:
    for line in split(data):
        assert not set(line) & set("\n\r\x00\x1b")
        line.encode()


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", "é".encode(), b"\xc3", b"\xa9", b"long" * 9]), max_size=30)
)
def test_chunks_make_no_difference(chunks: list[bytes]) -> None:
    assert split(*chunks, limit=20) == split(b"".join(chunks), limit=20)
