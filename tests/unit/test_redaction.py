"""Redaction: what a log may show of secrets."""

from __future__ import annotations

import base64
import json
import random
import shlex
import string
import textwrap
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchline.adapters.lines import Lines
from branchline.domain.redaction import MASK, Redactor

SECRET = "s3cr3t/To+ken=='\"&x"
PEM = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA7\nyJ2w==\nQmFzZTY0IGlzIG5vdA\n-----END KEY-----\n"

values = st.text(min_size=8, max_size=40).filter(lambda value: bool(value.strip()) and value not in MASK)
texts = st.text(max_size=60)
long_values = st.text(alphabet=string.ascii_letters + string.digits + "+/'\"é\x01\x1b[ \n", min_size=24, max_size=400)


def a_long_value(size: int) -> str:
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits, k=size))


def signs_of(value: bytes, shift: int) -> str:
    """The signs of base64 that are the value's alone, where `shift` bytes precede it."""
    return base64.b64encode(bytes(shift) + value).decode()[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]


def pieces_of(text: str, size: int = 16) -> set[str]:
    return {text[at : at + size] for at in range(len(text) - size + 1)}


def redactor(*secrets: str) -> Redactor:
    made = Redactor()
    made.hide(secrets)
    return made


@given(st.lists(values, min_size=1, max_size=6), st.lists(texts, min_size=7, max_size=7))
def test_no_value_survives(secrets: list[str], around: list[str]) -> None:
    line = "".join(text + secret for text, secret in zip(around, [*secrets, ""], strict=False))
    shown = redactor(*secrets).redact(line)
    assert not [secret for secret in secrets if secret in shown]


@given(st.lists(st.text(alphabet="[hiden]x", min_size=4, max_size=9), max_size=6), st.text(alphabet="[hiden]x:/@ "))
def test_no_value_survives_that_looks_like_the_mask(secrets: list[str], line: str) -> None:
    shown = redactor(*secrets).redact(line)
    assert not [secret for secret in secrets if secret in shown and secret not in MASK]


@given(values, st.binary(max_size=9), st.binary(max_size=9), texts)
def test_base64_of_a_value_within_anything_cannot_be_decoded_to_it(
    secret: str, before: bytes, after: bytes, text: str
) -> None:
    hidden = redactor(secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + secret.encode() + after).decode()
        assert encoded not in hidden.redact(f"{text} {encoded}")
        first = len(before) + (-len(before) % 3)  # from here on whole groups of four signs are the secret's
        inner = encode(secret.encode()[first - len(before) :]).decode()[:-4]
        assert len(inner) < 4 or inner not in hidden.redact(encoded)


@given(values)
def test_a_line_without_secrets_stays_as_it_is(secret: str) -> None:
    line = "Step 3/12: RUN pip install -r requirements.txt  (1.2 MB)"
    assert redactor(secret + "\x00").redact(line) == line


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("s3cr3t%2fto", "s3cr3t%2fTo"),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        shlex.quote(SECRET)[1:-1],
        SECRET.replace("'", "'\\''"),
        repr(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode().rstrip("=")[:-1],
    ],
)
def test_every_way_to_write_a_value_is_hidden(shown: str) -> None:
    assert redactor(SECRET).redact(f"+ export TOKEN={shown} && run") == f"+ export TOKEN={MASK} && run"


def test_a_value_of_several_lines_is_hidden_line_by_line() -> None:
    hidden = redactor(PEM)
    lines = [hidden.redact(line) for line in PEM.splitlines()]
    assert lines == [MASK, MASK, "yJ2w==", MASK, MASK]
    assert hidden.redact(f'{{"key": {json.dumps(PEM)}}}') == f'{{"key": "{MASK}"}}'


@pytest.mark.parametrize("size", [60, 113, 1700])
@pytest.mark.parametrize("prefix", [b"", b"x", b"xy"])
@pytest.mark.parametrize("suffix", [b"", b"\n"])
@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_wrapped_base64_is_hidden_in_every_line(
    size: int, prefix: bytes, suffix: bytes, width: int, encode: Callable[[bytes], bytes]
) -> None:
    secret = a_long_value(size - 1) + "ÿ"
    hidden = redactor(secret)
    lines = textwrap.wrap(encode(prefix + secret.encode() + suffix).decode(), width)
    for before in ("", "#7 0.123 "):
        shown = [hidden.redact(before + line).removeprefix(before) for line in lines]
        assert set(shown[:-1]) == {MASK}
        # What stays of the last group of signs, as of every encoding, is not the value's alone, or under four signs.
        assert len(shown[-1].replace(MASK, "")) <= 4


@pytest.mark.parametrize("before", range(40, 60))
def test_a_short_value_that_a_wrap_divides_is_hidden_on_both_sides(before: int) -> None:
    secret = a_long_value(32)
    hidden = redactor(secret)
    lines = base64.encodebytes(b"." * before + secret.encode() + b"." * 80).decode().splitlines()
    shown = [hidden.redact(line) for line in lines]
    core = signs_of(secret.encode(), before % 3)
    assert not pieces_of(core, 4) & {piece for line in shown for piece in pieces_of(line, 4)}


def test_base64_of_something_else_stays() -> None:
    hidden = redactor(PEM, a_long_value(3000))
    for line in base64.encodebytes(random.Random(1).randbytes(20_000)).decode().splitlines():
        assert hidden.redact(line) == line
    assert hidden.redact("sha256:" + "5f70bf18a0860070" * 4) == "sha256:" + "5f70bf18a0860070" * 4


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("key=correct horse bat… [12 more bytes]", f"key={MASK}… [12 more bytes]"),
        ("correct horse battery and c… [1 more characters]", f"{MASK} and {MASK}… [1 more characters]"),
        ("exited with 1: cor… [9 more bytes] (twice)", f"exited with 1: {MASK}… [9 more bytes] (twice)"),
        ("at postgres://app:hunt… [9 more bytes]", f"at postgres://app:{MASK}… [9 more bytes]"),
        ("nothing of it… [12 more bytes]", "nothing of it… [12 more bytes]"),
        ("key=correct horse bat… [more]", "key=correct horse bat… [more]"),
    ],
)
def test_what_a_secret_begins_with_is_hidden_before_a_cut(line: str, shown: str) -> None:
    hidden = redactor("correct horse battery")
    assert hidden.redact(line) == shown
    assert hidden.redact(shown) == shown


@pytest.mark.parametrize("secret", ["]abc", "n]… [1 more", "[hidden]x", "hidden]… [12 more bytes]"])
def test_a_cut_behind_a_mask_comes_to_an_end(secret: str) -> None:
    line = f"{MASK}… [12 more bytes]"
    assert redactor(secret).redact(line).startswith(MASK)


@pytest.mark.parametrize(
    "secret",
    [
        "pass\x01word",
        "pass\x1b[31mword",
        "\x1b]0;title\x07password",
        "pass\x7fword\x1b[3",
        "p\ras\x00sword\n",
        "p'a\x08ss",
    ],
)
def test_a_value_is_hidden_as_a_log_shows_it(secret: str) -> None:
    hidden = redactor(secret)
    for written in (secret, json.dumps(secret, ensure_ascii=False), secret.replace("'", "'\\''")):
        lines = Lines()
        shown = [hidden.redact(line) for line in [*lines.feed(f"<{written}>\n".encode()), *lines.close()]]
        assert not [part for part in ("pass", "word") if part in "".join(shown)]


@settings(deadline=None)
@given(long_values, st.lists(st.integers(1, 90)), st.integers(20, 300), st.binary(max_size=4))
def test_no_piece_of_any_form_is_seen(secret: str, sizes: list[int], limit: int, before: bytes) -> None:
    """However a stream is cut into chunks, and its lines are cut short: no sixteen signs of a secret in a line."""
    data = secret.encode()
    forms = [secret, quote(secret, safe=""), json.dumps(secret), repr(secret), shlex.quote(secret)]
    bare = before + data
    wrapped = [base64.encodebytes(bare).decode(), "\n".join(textwrap.wrap(base64.urlsafe_b64encode(bare).decode(), 64))]
    stream = "\n".join([f"a: {form}" for form in forms] + forms + wrapped).encode()
    lines, hidden, shown = Lines(limit), redactor(secret), list[str]()
    for size in [*sizes, len(stream)]:
        shown += lines.feed(stream[:size])
        stream = stream[size:]
    seen = {piece for line in [*shown, *lines.close()] for piece in pieces_of(hidden.redact(line))}
    cores = [signs_of(data, shift) for shift in range(3)]
    cores += [core.translate(str.maketrans("+/", "-_")) for core in cores]
    assert not seen & {piece for form in [*forms, *cores] for piece in pieces_of(form.strip("'\""))}


def test_the_longest_secret_is_hidden_whole() -> None:
    hidden = redactor("word1234", "postgresql://shop:word1234@10.0.0.1:5432/shop")
    assert hidden.redact("url=postgresql://shop:word1234@10.0.0.1:5432/shop") == f"url={MASK}"


def test_overlapping_secrets_leave_nothing_between_them() -> None:
    assert redactor("abcdefgh", "fghijklm").redact("<abcdefghijklm>") == f"<{MASK}>"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("at postgres://app:hunter2@db:5432/x?y", f"at postgres://app:{MASK}@db:5432/x?y"),
        ("https://:tok@h/a https://u:p@ss@h/", f"https://:{MASK}@h/a https://u:{MASK}@h/"),
        ("ssh://git@host/repo.git", "ssh://git@host/repo.git"),
        ("http://127.0.0.1:8000/me@here", "http://127.0.0.1:8000/me@here"),
        ("https://x:8080 and a@b", "https://x:8080 and a@b"),
    ],
)
def test_passwords_in_urls_are_hidden_without_being_known(line: str, shown: str) -> None:
    assert Redactor().redact(line) == shown
    assert Redactor().redact(shown) == shown


@pytest.mark.parametrize("value", ["", "1", "on", "80", "    ", "hidden", MASK])
def test_what_is_no_secret_is_not_hidden(value: str) -> None:
    line = f"    test 1 of 80 is on {MASK}"
    assert redactor(value).redact(line) == line


def test_hiding_adds_to_what_was_hidden_before() -> None:
    hidden = redactor("first-secret")
    hidden.hide(["second-secret"])
    assert hidden.redact("first-secret second-secret") == f"{MASK} {MASK}"


def test_long_and_hostile_lines_take_no_time() -> None:
    hidden = redactor(*(f"secret-number-{number}" for number in range(40)))
    started = time.process_time()
    hidden.redact("a://b:" * 20_000)
    hidden.redact("://" + "x" * 200_000)
    assert hidden.redact("secret-number-7" * 5_000) == MASK
    assert time.process_time() - started < 5
