"""What people and scripts see: plain text with a little colour, tables, JSON, and the one shape of errors."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from branchline.domain.errors import BranchlineError

if TYPE_CHECKING:
    from pydantic import BaseModel

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links
    r"|\x1b[\[][0-?]*[ -/]*[@-~]"  # colours and cursor movement
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]"
)


class Style(StrEnum):
    """Colours, as the numbers of ANSI escapes."""

    GOOD = "32"
    BAD = "31"
    WARNING = "33"
    DIM = "2"
    STRONG = "1"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream on a screen that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: Style, stream: TextIO) -> str:
    """Colour the text where the stream is a terminal and NO_COLOR is unset."""
    if not text or not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def sign(unicode: str, ascii_: str, stream: TextIO) -> str:
    """The first sign where the stream can carry it, else the second."""
    try:
        unicode.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ascii_
    return unicode


def printable(text: str) -> str:
    """The text without escapes and control characters, as a log line may hold them; tabs stay.

    Of a progress bar that overwrites itself with carriage returns, its last picture stays.
    """
    pictures = [part for part in text.split("\r") if part]
    return _ESCAPES.sub("", pictures[-1] if pictures else "")


def say(text: str = "") -> None:
    """Print a line that is the command's result."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print a line beside the result, on stderr."""
    sys.stderr.write(text + "\n")


def as_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """Print a message of the API, or a list of them, as one JSON document."""
    say(_document(value))


def _document(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> str:
    if isinstance(value, dict):
        plain: Any = value
    elif isinstance(value, Sequence):
        plain = [item.model_dump(mode="json") for item in value]
    else:
        plain = value.model_dump(mode="json")
    narrow = sign("é", "", sys.stdout) == ""
    return json.dumps(plain, indent=2, ensure_ascii=narrow)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, fold: int | None = None) -> None:
    """Print rows beneath dim headings. A terminal cuts what does not fit; a pipe gets all of it.

    With `fold`, rows are this wide at the most, and the last column goes on in the next line.
    """
    from rich.console import Console  # noqa: PLC0415 a quarter of a second that only tables need
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    wide = is_terminal(sys.stdout)
    console = Console(file=sys.stdout, width=fold or (None if wide else 100_000), highlight=False)
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for number, column in enumerate(columns, 1):
        folded = fold is not None and number == len(columns)
        grid.add_column(column.upper(), no_wrap=not folded, overflow="fold" if folded else "ellipsis")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        say(line.rstrip())


def facts(pairs: Sequence[tuple[str, str | None]]) -> None:
    """Print names and values, one a line; those without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{paint(name.ljust(width), Style.DIM, sys.stdout)}  {printable(value)}")


def duration(seconds: float) -> str:
    """A span of time for people: `0.3 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def moment(at: datetime | None) -> str:
    """A point in time in the reader's own time zone, to the second."""
    if at is None:
        return ""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return aware.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(number: int, noun: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def error(failure: BranchlineError, *, with_json: bool = False) -> None:
    """Print an error in its one shape on stderr, and with `--json` as a problem object on stdout."""
    if with_json:
        as_json(
            {
                "code": failure.code,
                "title": failure.sentence,
                "detail": "\n".join(getattr(failure, "__notes__", [])),
                "hint": failure.hint,
                "status": failure.status,
            }
        )
    code = paint(f" ({failure.code})", Style.DIM, sys.stderr) if is_terminal(sys.stderr) else ""
    note(paint("Error:", Style.BAD, sys.stderr) + f" {_multiline(failure.sentence)}{code}")
    for detail in getattr(failure, "__notes__", []):
        note(f"  {_multiline(detail)}")
    if failure.hint:
        note(paint("Hint:", Style.WARNING, sys.stderr) + f" {_multiline(failure.hint)}")


def _multiline(text: str) -> str:
    return "\n  ".join(printable(line) for line in text.split("\n"))
