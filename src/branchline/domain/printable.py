"""What a log shows of a line: no control characters, and a mark where a long one was cut."""

from __future__ import annotations

import re

# Colours and cursor movements mean nothing in a log and could fool a terminal; PostgreSQL cannot store a NUL.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*(?:[@-~]|\Z)|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)

CUT = re.compile(r"… \[\d+ more (?:bytes|characters)\]")
"""What `cut` puts at the end. Whoever reads a text with it knows that the text before it went on."""


def printable(text: str) -> str:
    """The text without control characters, but for tabs; an escape sequence goes as a whole, also if its end lacks.

    What this makes of the beginning of a text is the beginning of what it makes of the text: it may be cut before.
    """
    return text if text.isprintable() else _CONTROL.sub("", text)


def cut(text: str, more: int, unit: str) -> str:
    """A text of which `more` are missing at its end; the `unit` is `bytes` or `characters`."""
    return f"{text}… [{more} more {unit}]"
