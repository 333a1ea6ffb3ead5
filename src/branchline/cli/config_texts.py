"""Text of settings from files and standard input: never more than can be of use, and in UTF-8."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from branchline.domain.errors import BadInput

_BASE64 = "Encode binary values, as base64."
_UTF_8 = "It looks like text in another encoding. Save it as UTF-8."

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""What editors write before such text; UTF-32's other mark begins as UTF-16's does."""


def content_of(file: Path | None, limit: int, too_large: BadInput) -> bytes:
    """What a file holds, or (None) standard input. Raises `too_large` beyond so many bytes, and OSError."""
    if file is None:
        content = sys.stdin.buffer.read(limit + 1)
    else:
        with file.open("rb") as source:
            content = source.read(limit + 1)  # /dev/zero has no end
    if len(content) > limit:
        raise too_large
    return content


def decoded(content: bytes, what: str) -> str:
    """The content as text, without the mark that some editors begin it with. `what` is called so in errors.

    Raises BadInput (`bad_value`) where it is not in UTF-8, and never shows any of it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        elsewise = content.startswith(_MARKS) or _is_text(content, "latin-1")
        raise _not_utf_8(what, _UTF_8 if elsewise else _BASE64) from None
    if "\0" in text and (_is_text(content, "utf-16-le") or _is_text(content, "utf-16-be")):
        raise _not_utf_8(what, _UTF_8)
    return text


def _not_utf_8(what: str, hint: str) -> BadInput:
    return BadInput(f"{what} is not text in UTF-8.", code="bad_value", hint=hint)


def _is_text(content: bytes, encoding: str) -> bool:
    """Whether it is without anything that no editor writes, such as control characters."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\xa0\xad" for letter in text)
