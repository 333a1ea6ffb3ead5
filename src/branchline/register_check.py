"""Checks files of the register by themselves: with the public key, and without any platform."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from branchline.domain.chain import Check, Fault, Head, Link, Seal
from branchline.domain.errors import BadInput, NotFound
from branchline.register_file import Opening, Torn, read_lines, read_opening
from branchline.signatures import fingerprint, from_pem, signed_by

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Checked:
    """What a check of files found: `after` is the row that they begin behind, `keys` are short names of those used."""

    check: Check
    faults: Sequence[Fault]
    after: int
    keys: Sequence[str]


def check(place: Path, keys: Collection[bytes] | None, noted: Collection[Head] = ()) -> Checked:
    """Check a file, or all segments of an archive in a folder, one after the other.

    Without `keys` those are taken that the first file names itself. Raises BadInput (`no_register`, `bad_public_key`)
    and NotFound (`no_file`).
    """
    files = segments(place) if place.is_dir() else [place]
    if not files:
        raise NotFound(
            f"There is no segment in {place}.", code="no_file", hint="`branchline audit archive` writes some."
        )
    opening = _opening(files[0])
    known = list(keys) if keys is not None else from_pem("\n".join(opening.keys.values()))
    over = Check(signed_by(known), start=opening.start, noted=[head for head in noted if head.seq > opening.start.seq])
    for file in files:
        _go_over(file, over)
    return Checked(over, over.end(), opening.start.seq, [fingerprint(key) for key in known])


def segments(folder: Path) -> list[Path]:
    """The files of an archive, in their order."""
    return sorted(folder.glob(f"register-*{SUFFIX}"))


def end_of(file: Path) -> Head:
    """The head that a file ends with; raises BadInput (`no_register`) where it does not end as it must."""
    with file.open("rb") as lines:
        read_opening(lines.readline(100_000))
        lines.seek(0, 2)
        lines.seek(max(0, lines.tell() - 1000))
        try:
            *_, last = read_lines(lines.read().splitlines()[-1:])
        except Torn:
            last = None
    if not isinstance(last, Head):
        raise BadInput(
            f"{file} has no end.",
            code="no_register",
            hint="It was cut, or changed. Put it right from a copy, or remove it.",
        )
    return last


def _opening(file: Path) -> Opening:
    with _opened(file) as lines:
        return read_opening(lines.readline(1_000_000))


def _go_over(file: Path, over: Check) -> None:
    with _opened(file) as lines:
        read_opening(lines.readline(1_000_000))
        try:
            for item in read_lines(lines):
                if isinstance(item, Link):
                    over.link(item)
                elif isinstance(item, Seal):
                    over.seal(item)
                elif item.seq > over.head.seq:
                    over.lacks(f"{file.name} says that it ends with row {item.seq}", item.seq)
        except Torn as torn:
            over.lacks(f"{file.name} has no readable line {torn.args[0]}")


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise NotFound(
            f"{file} cannot be read: {error.strerror}.",
            code="no_file",
            hint="Give the path of an export or an archive.",
        ) from None
