"""Redaction: what a log may show of secrets."""

from __future__ import annotations

import base64
import json
import shlex
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline.domain.redaction import MASK, Redactor

SECRET = "s3cr3t/To+ken=='\"&x"
PEM = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA7\nyJ2w==\nQmFzZTY0IGlzIG5vdA\n-----END KEY-----\n"

values = st.text(min_size=8, max_size=40).filter(lambda value: bool(value.strip()) and value not in MASK)
texts = st.text(max_size=60)


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
