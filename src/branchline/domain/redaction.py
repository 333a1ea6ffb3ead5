"""Redaction: keeps the values of secrets, in whatever form a program writes them, out of a log."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "[hidden]"
SHORTEST_VALUE = 4
"""Shorter values (`1`, `80`, `on`) are not hidden: they are in every other line, and no secret has three characters."""

SHORTEST_LINE = 8
"""Shorter lines of a value of several lines are not hidden: they are `{`, `fi` or an empty line."""

_URL_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s/]+)@")


class Redactor:
    """Replaces secrets in single lines by `[hidden]`.

    Hidden are: each value as it is; its lines, if it has several; what base64 makes of it, alone or within something
    longer; and it as URLs, JSON, Python and shells write it. The password in any URL is hidden without being known.
    Not hidden are values shorter than `SHORTEST_VALUE`, blank ones, and those that are a part of `[hidden]` itself.
    """

    def __init__(self) -> None:
        self._needles: frozenset[str] = frozenset()
        self._beginnings: frozenset[str] = frozenset()

    def hide(self, values: Iterable[str]) -> None:
        """From now on these values are hidden, besides those of earlier calls."""
        forms = frozenset(form for value in values for form in _forms(value) if form not in MASK)
        self._beginnings |= {form[:SHORTEST_VALUE] for form in forms}  # first: a line may come in between
        self._needles |= forms

    def redact(self, text: str) -> str:
        """The line without any secret."""
        while spans := list(self._spans(text)):
            text = _cover(text, spans)
        return text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where secrets are; again and again, since a cover may complete another secret."""
        if "://" in text:
            for match in _URL_PASSWORD.finditer(text):
                if match[1] != MASK:
                    yield match.span(1)
        # Hundreds of needles, and hardly a line that holds one: ask for all of their beginnings at once.
        windows = [text[at : at + SHORTEST_VALUE] for at in range(len(text) - SHORTEST_VALUE + 1)]
        if not self._beginnings.isdisjoint(windows):
            for needle in self._needles:
                start = text.find(needle)
                while start >= 0:
                    yield start, start + len(needle)
                    start = text.find(needle, start + 1)


def _cover(text: str, spans: list[tuple[int, int]]) -> str:
    """Put one mask over each group of spans that overlap or touch.

    A mask that is there already counts as one more span, so that none is ever cut in two: each round leaves less of
    the line, and there is a last one.
    """
    spans += [match.span() for match in re.finditer(re.escape(MASK), text)]
    pieces: list[str] = []
    done = 0
    covered = -1
    for start, end in sorted(spans):
        if start > covered:
            pieces += [text[done:start], MASK]
        done = covered = max(covered, end)
    return "".join([*pieces, text[done:]])


def _forms(value: str) -> Iterator[str]:
    """All that must not be seen of a value."""
    bare = value.strip()
    if len(bare) >= SHORTEST_VALUE:
        for whole in {value, bare}:
            yield whole
            yield from (form for form in _encodings(whole) if len(form) >= SHORTEST_VALUE)
    elif bare and len(value) >= SHORTEST_LINE:
        yield value
    lines = [line.strip() for line in bare.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= SHORTEST_LINE)


def _encodings(value: str) -> Iterator[str]:
    data = value.encode(errors="surrogatepass")
    for shift in range(3):
        core = _base64_core(data, shift)
        yield core
        yield core.translate(str.maketrans("+/", "-_"))
    for safe in ("", "/", "!'()*", "/:@!$&'()*+,;=~"):
        escaped = quote(data, safe=safe)
        yield escaped
        yield re.sub("%..", lambda match: match[0].lower(), escaped)
    yield quote_plus(data)
    for plain_unicode in (True, False):
        yield json.dumps(value, ensure_ascii=not plain_unicode)[1:-1]
    yield json.dumps(value)[1:-1].replace("/", "\\/")
    yield repr(value)[1:-1]
    yield shlex.quote(value)[1:-1] if shlex.quote(value) != value else value
    yield value.replace("'", "'\\''")
    yield re.sub(r"[^\w@%+=:,./-]", lambda match: "\\" + match[0], value)


def _base64_core(data: bytes, shift: int) -> str:
    """The signs of base64 that these bytes alone decide, where `shift` bytes of something else precede them."""
    encoded = base64.b64encode(bytes(shift) + data).decode()
    return encoded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
