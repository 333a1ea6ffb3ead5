"""The register as a chain: what is hashed, what is signed, and what a check finds where rows do not fit.

hash(n) = SHA-256(hash(n-1) and the text of row n), with 32 zero bytes before row 1. Each row keeps the hash before it,
so that a row which was changed is told from one that only follows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

ORIGIN = bytes(32)
"""What stands in the place of a hash before the first row."""

MOST_FAULTS = 1000
"""So many are told; the rest is only counted."""

_AFTER_TIME = len('{"at": "2026-01-01T00:00:00.000000Z"')
_NUMBER = re.compile(r', "id": (\d{1,19}), ')


class Link(NamedTuple):
    """A row: its number, the hash before it, its text, and its own hash.

    `agrees` is False where the columns that people are shown say something else than the text.
    """

    seq: int
    previous: bytes
    body: str
    hash: bytes
    agrees: bool = True


class Head(NamedTuple):
    """Up to where the register goes: the newest row and its hash."""

    seq: int
    hash: bytes


@dataclass(frozen=True)
class Seal:
    """A head, signed: `signature` holds the raw 64 bytes of Ed25519, made by version `key_version` of the key."""

    seq: int
    hash: bytes
    at: datetime
    key_version: int
    signature: bytes

    @property
    def statement(self) -> bytes:
        """What was signed."""
        return statement(Head(self.seq, self.hash), self.at)


class What(StrEnum):
    """What was done to rows."""

    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    FORGED = "forged"


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with the rows from `row` to `last`, in words without a full stop."""

    what: What
    row: int
    last: int
    text: str

    def __str__(self) -> str:
        rows = f"row {self.row}" if self.row == self.last else f"rows {self.row} to {self.last}"
        return f"{rows} {self.what}: {self.text}"


def hash_of(previous: bytes, body: str) -> bytes:
    """The hash of a row."""
    return hashlib.sha256(previous + body.encode(errors="surrogatepass")).digest()


def moment(at: datetime) -> str:
    """A time as texts of rows and statements have it: UTC with microseconds, always 27 characters."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def statement(head: Head, at: datetime) -> bytes:
    """What a seal's signature is made over."""
    return f"branchline-register-head:v1\n{head.seq}\n{head.hash.hex()}\n{moment(at)}\n".encode()


def canonical(item: Any) -> str:
    """The one way to write something as JSON: as PostgreSQL writes its `jsonb`.

    Keys by their length in bytes, then by their bytes; `, ` and `: ` between; nothing escaped but `"`, `\\` and control
    characters; numbers without exponents.
    """
    if isinstance(item, Mapping):
        keys = sorted(item, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{_text(key)}: {canonical(item[key])}" for key in keys) + "}"
    if isinstance(item, list | tuple):
        return "[" + ", ".join(map(canonical, item)) + "]"
    if isinstance(item, float):
        return format(Decimal(repr(item)), "f")
    return _text(item)


def _text(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False)


def number_of(body: str) -> int | None:
    """The number that a row's text says it has; None where it is no text of a row."""
    found = _NUMBER.match(body, _AFTER_TIME)
    return int(found[1]) if found else None


class Check:
    """Goes over rows and seals in their order and collects what is wrong. Takes the same memory however many they are.

    `genuine` says whether a seal's signature is good; `noted` are heads that somebody wrote down elsewhere. A part of
    the register is checked from after `start`.
    """

    def __init__(self, genuine: Callable[[Seal], bool], *, start: Head | None = None, noted: Collection[Head] = ()):
        self._genuine = genuine
        self._start = start or Head(0, ORIGIN)
        self._noted = sorted(noted)
        self._row = Link(self._start.seq, b"", "", self._start.hash)
        self._number: int | None = self._start.seq
        self._before = ORIGIN
        self._firm = True
        self._told = False
        self._gaps: list[tuple[int, int]] = []
        self._displaced: set[int] = set()
        self._good = self._start.seq
        self._sealed = self._start.seq
        self._faults: list[Fault] = []
        self.rows = 0
        self.seals = 0
        self.found = 0
        """How many faults there are, also those beyond MOST_FAULTS."""

    @property
    def head(self) -> Head:
        """The newest row that was looked at."""
        return Head(self._row.seq, self._row.hash)

    @property
    def sealed(self) -> int:
        """The newest row that a genuine seal covers."""
        return self._sealed

    def link(self, link: Link) -> None:
        """Look at the next row."""
        self.rows += 1
        seq, previous, body, hashed, agrees = link
        row = self._row
        if not (
            seq == row.seq + 1
            and previous == row.hash
            and agrees
            and body.startswith(f', "id": {seq}, ', _AFTER_TIME)
            and hashlib.sha256(previous + body.encode(errors="surrogatepass")).digest() == hashed
        ):
            self._judge(link)
        elif self._noted or self._told or not self._firm:
            self._accept(link, seq)
        else:
            self._before, self._row, self._number = row.hash, link, seq

    def seal(self, seal: Seal) -> None:
        """Look at a seal; it comes after the row that it seals."""
        self.seals += 1
        if not self._genuine(seal):
            self._fault(What.FORGED, seal.seq, "no key of the register has signed its seal")
            return
        self._sealed = max(self._sealed, seal.seq)
        if seal.seq == self._row.seq:
            self._compare(Head(seal.seq, seal.hash), f"the seal of {moment(seal.at)}")

    def lacks(self, text: str, last: int | None = None) -> None:
        """Say that rows are missing at the end, up to `last` where that is known."""
        first = self._row.seq + 1
        self._fault(What.TRUNCATED, first, text, max(first, last or first))

    def end(self) -> list[Fault]:
        """All that is wrong, by row, once everything was looked at."""
        for first, last in self._gaps:
            self._fault(What.DELETED, first, "missing, although later ones are there", last)
        self._gaps = []
        beyond = max([self._sealed, *(head.seq for head in self._noted)])
        if beyond > self._row.seq:
            self.lacks(f"the register was sealed, or noted, up to row {beyond}", beyond)
        return sorted(self._faults, key=lambda fault: (fault.row, fault.last))

    # --- where something is wrong ---

    def _judge(self, link: Link) -> None:
        row, number = self._row, number_of(link.body)
        own = hash_of(link.previous, link.body) == link.hash
        if link.seq <= row.seq:
            self._out_of_place(link)
            return
        firm = self._firm
        if link.seq > row.seq + 1:
            self._gaps.append((row.seq + 1, link.seq - 1))
            firm = False
        fits = link.previous == row.hash
        told = moved = False
        if number is None:
            told = self._fault(What.EDITED, link.seq, "its text is no text of a row")
        elif number != link.seq:
            follows = own and fits and self._number is not None and number == self._number + 1
            if own and firm and number == row.seq and link.previous == self._before:
                self._inserted(row.seq)
            elif firm and self._number is not None and number <= self._number and number not in self._displaced:
                self._fault(What.INSERTED, link.seq, f"it holds row {number} once more")
                self._row = row._replace(seq=link.seq)  # what comes now follows the one before it
                return
            elif not follows:
                told = moved = self._fault(What.REORDERED, link.seq, f"it holds what was written as row {number}")
        elif not own and firm and not fits and hash_of(row.hash, link.body) != link.hash:
            told = self._fault(What.INSERTED, link.seq, "neither its hash nor the row before it fits")
        elif not own:
            told = self._fault(What.EDITED, link.seq, "its text does not give its hash")
        elif firm and not fits and not self._told:
            self._unfitting(link, row)
        if moved and len(self._displaced) < MOST_FAULTS:
            self._displaced.add(link.seq)
        if number == link.seq and own and not link.agrees:
            told = self._fault(What.EDITED, link.seq, "its columns say something else than its text")
        self._accept(link, number, told=told, firm=not moved)

    def _unfitting(self, link: Link, row: Link) -> None:
        """A row that is whole and yet does not follow the one before."""
        if link.previous == self._before and row.seq > self._start.seq:
            self._inserted(row.seq)
        elif row.seq > self._start.seq:
            self._fault(What.EDITED, row.seq, f"row {link.seq} was written after another text, with another hash")
        else:
            self._fault(What.EDITED, link.seq, "it does not follow what must be before it")

    def _out_of_place(self, link: Link) -> None:
        for place, (first, last) in enumerate(self._gaps):
            if first <= link.seq <= last:
                self._gaps[place : place + 1] = [
                    gap for gap in ((first, link.seq - 1), (link.seq + 1, last)) if gap[0] <= gap[1]
                ]
                self._fault(What.REORDERED, link.seq, f"it stands after row {self._row.seq}")
                return
        self._fault(What.INSERTED, link.seq, "there is no place for it")
        self._firm = False

    def _inserted(self, row: int) -> None:
        """A row proves to be one too many: what was said of it by itself is withdrawn."""
        before = len(self._faults)
        self._faults = [fault for fault in self._faults if fault.row != row]
        self.found -= before - len(self._faults)
        self._fault(What.INSERTED, row, "the row after it follows the one before it")

    def _accept(self, link: Link, number: int | None, *, told: bool = False, firm: bool = True) -> None:
        self._before, self._row, self._number = self._row.hash, link, number
        self._told, self._firm = told, firm
        while self._noted and self._noted[0].seq <= link.seq:
            head = self._noted.pop(0)
            if head.seq == link.seq:
                self._compare(head, "what was noted elsewhere")
            # else it belongs to a row that is missing, which is told of by itself

    def _compare(self, head: Head, what: str) -> None:
        """Whether a head that can be relied on is the one that is here."""
        if head.hash == self._row.hash:
            self._good = head.seq
        elif not any(fault.last > self._good for fault in self._faults) and not self._gaps:
            self._fault(What.REWRITTEN, self._good + 1, f"{what} has another hash for row {head.seq}", head.seq)

    def _fault(self, what: What, row: int, text: str, last: int | None = None) -> bool:
        self.found += 1
        if len(self._faults) < MOST_FAULTS:
            self._faults.append(Fault(what, row, row if last is None else last, text))
        return True


def by_turns(links: Iterable[Link], seals: Iterable[Seal]) -> Iterator[Link | Seal]:
    """Rows with each seal right after the row that it seals; a seal of a row that is missing comes where that would."""
    waiting = iter(seals)
    seal = next(waiting, None)
    for link in links:
        while seal is not None and seal.seq < link.seq:
            yield seal
            seal = next(waiting, None)
        yield link
    while seal is not None:
        yield seal
        seal = next(waiting, None)
