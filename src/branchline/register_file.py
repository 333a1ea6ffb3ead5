"""The register as a file of JSON lines: rows and seals in their order, to be checked by anybody with the public key.

The first line says what it is and with which keys it was sealed, each other one holds a `row`, a `seal`, or at last the
`end`, without which a part is missing. docs/register.md has it in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from branchline.domain.chain import ORIGIN, Head, Link, Seal, moment
from branchline.domain.errors import BadInput

FORMAT = "branchline-register:1"


@dataclass(frozen=True)
class Opening:
    """The first line: the rows after `start` follow, sealed with these keys (PEM by version)."""

    start: Head
    keys: Mapping[int, str]

    @property
    def line(self) -> str:
        """As it is written."""
        keys = [{"version": version, "public_key": self.keys[version]} for version in sorted(self.keys)]
        return _line({"format": FORMAT, "after": self.start.seq, "previous": self.start.hash.hex(), "keys": keys})


class Torn(Exception):
    """The file ends, or cannot be read, at a line; its number is the first argument."""


def row_line(link: Link) -> str:
    """A row as it is written."""
    row = {"seq": link.seq, "previous": link.previous.hex(), "hash": link.hash.hex(), "body": link.body}
    return _line({"row": row})


def seal_line(seal: Seal) -> str:
    """A seal as it is written."""
    told = {
        "seq": seal.seq,
        "hash": seal.hash.hex(),
        "at": moment(seal.at),
        "key_version": seal.key_version,
        "signature": seal.signature.hex(),
    }
    return _line({"seal": told})


def end_line(head: Head) -> str:
    """The last line."""
    return _line({"end": {"seq": head.seq, "hash": head.hash.hex()}})


def read_opening(line: str | bytes) -> Opening:
    """The first line; raises BadInput (`no_register`) where it is none."""
    try:
        told = json.loads(line)
        keys = {int(key["version"]): str(key["public_key"]) for key in told["keys"]}
        opening = Opening(Head(int(told["after"]), bytes.fromhex(told["previous"])), keys)
        ours = told["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise BadInput(
            "That is no export of a register.",
            code="no_register",
            hint=f"Its first line has {FORMAT!r} as its `format`; `branchline audit export` writes one.",
        )
    return opening


def read_lines(lines: Iterable[str | bytes]) -> Iterator[Link | Seal | Head]:
    """What stands in the lines after the first; the last is the head that the end names. Raises Torn.

    Lines that cannot be read at all end it: what comes after them is not known to belong there.
    """
    number = 1
    for number, line in enumerate(lines, 2):
        try:
            told = json.loads(line)
            if (row := told.get("row")) is not None:
                yield Link(
                    int(row["seq"]), bytes.fromhex(row["previous"]), str(row["body"]), bytes.fromhex(row["hash"])
                )
            elif (seal := told.get("seal")) is not None:
                yield _seal(seal)
            elif (end := told.get("end")) is not None:
                yield Head(int(end["seq"]), bytes.fromhex(end["hash"]))
                return
            # Whatever else a newer version writes is not part of the chain.
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise Torn(number) from None
    raise Torn(number + 1)


def _seal(told: Mapping[str, Any]) -> Seal:
    at = datetime.fromisoformat(told["at"]).astimezone(UTC)
    signature = bytes.fromhex(told["signature"])
    return Seal(int(told["seq"]), bytes.fromhex(told["hash"]), at, int(told["key_version"]), signature)


def _line(told: Mapping[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"


BEGINNING = Head(0, ORIGIN)
"""Before the first row."""
