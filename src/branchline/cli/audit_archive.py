"""An archive of the register: a folder of segments, each an export by itself that ends with a seal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from branchline.domain.chain import Head, Link, Seal
from branchline.domain.errors import BadInput, Conflict, PlatformBroke
from branchline.register_check import SUFFIX, end_of, segments
from branchline.register_file import BEGINNING, Opening, Torn, end_line, read_lines, read_opening
from branchline.stack import files


class Archive:
    """One at a time writes into a folder. `head` is where the archive ends; a segment has at least `rows` rows."""

    def __init__(self, folder: Path, rows: int) -> None:
        """Raises BadInput (`file_unwritable`, `no_register`) and Conflict (`archive_busy`)."""
        self._folder = folder
        self._rows = rows
        self._partial = folder / "segment.partial"
        self._held = ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(files.locked(folder / ".lock"))
        except BlockingIOError:
            raise Conflict(
                f"Another command writes into {folder}.", code="archive_busy", hint="Wait until it has ended."
            ) from None
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            there = segments(folder)
            self.head = end_of(there[-1]) if there else BEGINNING
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)
        self._held.close()

    def take(self, lines: Iterable[bytes]) -> Iterator[str]:
        """Write an export of what comes after `head`, as far as it is sealed; gives the name of each new segment.

        Raises Conflict (`archive_differs`) where it does not go on from there.
        """
        coming = iter(lines)
        opening = read_opening(next(coming, b""))
        if opening.start != self.head:
            raise Conflict(
                f"Row {self.head.seq} of the register is not what the archive in {self._folder} ends with.",
                code="archive_differs",
                hint="Is it the archive of another platform? Else check both with `branchline audit verify`.",
            )
        try:
            yield from self._written(coming, opening)
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def _written(self, lines: Iterator[bytes], opening: Opening) -> Iterator[str]:
        ended = False
        while not ended:
            with self._partial.open("wb") as out:
                out.write(replace(opening, start=self.head).line.encode())
                upto, size, ended = self._fill(out, lines)
                if upto == self.head:  # no seal since
                    return
                out.truncate(size)
                out.seek(size)
                out.write(end_line(upto).encode())
                out.flush()
                os.fsync(out.fileno())
            target = self._folder / f"register-{self.head.seq + 1:012}-{upto.seq:012}{SUFFIX}"
            self._partial.replace(target)
            self.head = upto
            yield target.name

    def _fill(self, out: BinaryIO, lines: Iterator[bytes]) -> tuple[Head, int, bool]:
        """Copy rows until there are enough and a seal comes: up to which, at which length, and whether that was all."""
        row = upto = self.head
        size = out.tell()
        for line in lines:
            item = _parsed(line)
            if isinstance(item, Head):
                return upto, size, True
            out.write(line + b"\n")
            if isinstance(item, Link):
                row = Head(item.seq, item.hash)
            elif isinstance(item, Seal) and (item.seq, item.hash) == row:
                upto, size = row, out.tell()
                if upto.seq - self.head.seq >= self._rows:
                    return upto, size, False
        raise PlatformBroke(
            "The platform did not end its export.",
            code="export_broke_off",
            hint="Try again; the server's log says why.",
        )


def _parsed(line: bytes) -> Link | Seal | Head | None:
    try:
        return next(read_lines([line]), None)
    except Torn:
        return None


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        f"{folder} cannot be written: {error.strerror}.", code="file_unwritable", hint="Name another folder."
    )
