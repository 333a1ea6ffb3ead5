"""Redaction: keeps the values of secrets, in whatever form a program writes them, out of a log."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from branchline.domain.printable import CUT, printable

MASK = "[hidden]"
SHORTEST_VALUE = 4
"""Shorter values (`1`, `80`, `on`) are not hidden: they are in every other line, and no secret has three characters."""

SHORTEST_LINE = 8
"""Shorter lines of a value of several lines are not hidden: they are `{`, `fi` or an empty line."""

_URL_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s/]+)@")
_URL_PASSWORD_CUT = re.compile(r"://[^\s:/@]*:([^\s/]+)\Z")

# The base64 of a long value is wrapped, and no line has all of it. It is known by pieces of twelve signs, of which
# every fourth is remembered: whatever has fifteen signs of it has one of them.
_PIECE = 12
_STEP = 4
_KNOWN = _PIECE + _STEP - 1
_SIGNS = re.compile(rf"[A-Za-z0-9+/_-]{{{_KNOWN},}}")
_LAST_SIGNS = re.compile(r"(?<!\S)([A-Za-z0-9+/_-]{4,})={0,2}\s*\Z")  # builders put words before each line
_NARROWEST_WRAP = 64
_MARKS = 3
"""So many cuts of a line are looked at, the last ones: who cuts leaves one, and a sentence may quote two."""

_URL_SAFE = str.maketrans("+/", "-_")


class Redactor:
    """Replaces secrets in single lines by `[hidden]`.

    Hidden are: each value as it is; its lines, if it has several; what base64 makes of it, alone or within something
    longer, wrapped or not; it as URLs, JSON, Python and shells write it; and all this without control characters.
    Where a line was cut, what a secret may begin with is hidden as well. The password in any URL is hidden without
    being known. Not hidden are values shorter than `SHORTEST_VALUE`, blank ones, and those that are a part of
    `[hidden]` itself.
    """

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()
        # Thousands of needles and pieces, and hardly a line that holds one: each is looked for only where the signs
        # that it begins with are.
        self._needles: Mapping[str, frozenset[str]] = {}
        self._begun_with: frozenset[str] = frozenset()
        self._encoded_with: frozenset[str] = frozenset()
        self._pieces: frozenset[str] = frozenset()
        self._ends: frozenset[str] = frozenset()

    def hide(self, values: Iterable[str]) -> None:
        """From now on these values are hidden, besides those of earlier calls."""
        values = set(values) - self._values  # each costs a millisecond or, where it is large, many; stages repeat them
        raw = {form for value in values for form in _forms(value)}
        forms = {shown for form in raw for shown in (form, printable(form)) if _is_worth_hiding(shown)}
        cores = {core for value in values for whole in _wholes(value) for core in _base64_cores(whole)}
        pieces = {core[at : at + _PIECE] for core in cores for at in range(0, len(core) - _PIECE + 1, _STEP)}
        ends = {core[-size:] for core in cores for size in range(SHORTEST_VALUE, min(len(core) + 1, _KNOWN))}
        needles = {head: set(known) for head, known in self._needles.items()}
        for form in forms:
            needles.setdefault(form[:SHORTEST_VALUE], set()).add(form)
        # Other threads redact meanwhile: each of these is exchanged in one move, what is looked at first the last.
        self._pieces |= pieces
        self._ends |= ends
        self._encoded_with |= {text[:SHORTEST_VALUE] for texts in (pieces, ends) for text in texts}
        self._begun_with |= {form[:size] for form in forms for size in range(1, SHORTEST_VALUE)}
        self._needles = {head: frozenset(known) for head, known in needles.items()}
        self._values |= values

    def redact(self, text: str) -> str:
        """The line without any secret."""
        while spans := list(self._spans(text)):
            text = _cover(text, spans)
        return text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where secrets are; again and again, since a cover may complete another secret."""
        if "://" in text:
            yield from (match.span(1) for match in _URL_PASSWORD.finditer(text) if match[1] != MASK)
        windows = {text[at : at + SHORTEST_VALUE] for at in range(len(text) - SHORTEST_VALUE + 1)}
        for head in self._needles.keys() & windows:
            for needle in self._needles[head]:
                start = text.find(needle)
                while start >= 0:
                    yield start, start + len(needle)
                    start = text.find(needle, start + 1)
        if not self._encoded_with.isdisjoint(windows):
            yield from self._wrapped(text)
        if "… [" in text:
            for mark in list(CUT.finditer(text))[-_MARKS:]:
                yield from self._begun(text, mark.start(), shortest=1)
                if (match := _URL_PASSWORD_CUT.search(text, 0, mark.start())) and match[1] != MASK:
                    yield match.span(1)

    def _wrapped(self, text: str) -> Iterator[tuple[int, int]]:
        """Pieces of secrets in base64 that goes on in the next line, or comes from the one before."""
        for match in _SIGNS.finditer(text):
            start, end = match.span()
            for at in range(start, end - _PIECE + 1):
                if text[at : at + _PIECE] in self._pieces:
                    yield max(start, at - _STEP + 1), min(end, at + _PIECE + _STEP - 1)
        if last := _LAST_SIGNS.search(text):
            start, end = last.span(1)
            for size in range(SHORTEST_VALUE, _KNOWN):
                if text[start : start + size] in self._ends:
                    yield start, start + size
            if end - start >= _NARROWEST_WRAP:
                yield from self._begun(text, end, shortest=SHORTEST_VALUE)

    def _begun(self, text: str, end: int, shortest: int) -> Iterator[tuple[int, int]]:
        """What stands before `end` and begins a secret: the longest that is not shorter than `shortest`."""
        done = end - len(text[:end].rpartition(MASK)[2])
        for at in range(done, end - SHORTEST_VALUE + 1):
            known = self._needles.get(text[at : at + SHORTEST_VALUE], ())
            if any(needle.startswith(text[at:end]) for needle in known):
                yield at, end
                return
        for size in range(SHORTEST_VALUE - 1, shortest - 1, -1):
            if size <= end - done and text[end - size : end] in self._begun_with:
                yield end - size, end
                return


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


def _is_worth_hiding(form: str) -> bool:
    bare = form.strip()
    return form not in MASK and (len(bare) >= SHORTEST_VALUE or bool(bare and len(form) >= SHORTEST_LINE))


def _wholes(value: str) -> set[str]:
    """A value that is encoded as a whole, with and without the blanks around it; none if it is too short."""
    bare = value.strip()
    return {value, bare} if len(bare) >= SHORTEST_VALUE else set()


def _forms(value: str) -> Iterator[str]:
    """All that must not be seen of a value."""
    yield value
    for whole in _wholes(value):
        for form in (whole, *_encodings(whole)):
            yield form
            yield from _lines(form)


def _lines(form: str) -> Iterator[str]:
    """The longer lines of several: what Python takes for a line, and what a log does."""
    for lines in (form.splitlines(), re.split(r"[\r\n]", form)):
        if len(lines) > 1:
            yield from (bare for line in lines if len(bare := line.strip()) >= SHORTEST_LINE)


def _encodings(value: str) -> Iterator[str]:
    yield from _base64_cores(value)
    data = value.encode(errors="surrogatepass")
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


def _base64_cores(value: str) -> Iterator[str]:
    """The signs of base64 that these bytes alone decide, where 0, 1 or 2 bytes of something else precede them."""
    data = value.encode(errors="surrogatepass")
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + data).decode()
        core = encoded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
        yield core
        yield core.translate(_URL_SAFE)
