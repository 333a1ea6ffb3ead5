"""A stream of bytes as lines of text: bounded, printable, and the same however the stream was cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator

from branchline.domain.printable import cut, printable

LINE_LIMIT = 16 * 1024
"""Bytes of one line that are kept."""


class Lines:
    """Cuts a stream into lines; a long line is cut short and never kept whole.

    `\\n`, `\\r\\n` and `\\r` end a line; what progress bars draw over and over becomes a line each, and where they
    draw nothing there is none. Bytes that are not UTF-8 become `�`; control characters are left out.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._more = 0
        self._returned = ""  # what ended last: "line" or "nothing" by a \r that may be the first half of a \r\n

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that `chunk` completes."""
        for piece in chunk.splitlines(keepends=True):  # of bytes: splits at \n, \r\n and \r only
            body = piece.rstrip(b"\r\n")
            returned, self._returned = self._returned, ""
            if returned and piece == b"\n":
                if returned == "nothing":
                    yield ""
                continue
            self._add(body)
            if piece.endswith(b"\n"):
                yield self._take()
            elif piece.endswith(b"\r"):
                self._returned = "line" if self._kept else "nothing"
                if self._kept:
                    yield self._take()

    def close(self) -> Iterator[str]:
        """The last line, where no newline ended it."""
        if self._kept:
            yield self._take()

    def _add(self, body: bytes) -> None:
        room = 0 if self._more else self._limit - len(self._kept)
        self._kept += body[:room]
        self._more += max(0, len(body) - room)

    def _take(self) -> str:
        kept, more = bytes(self._kept), self._more
        self._kept.clear()
        self._more = 0
        if more:
            whole = next((n for n in range(1, 5) if kept[-n] & 0xC0 != 0x80), 0)  # do not cut a character in two
            kept, more = kept[: len(kept) - whole], more + whole
        text = printable(kept.decode("utf-8", "replace"))
        return cut(text, more, "bytes") if more else text  # by this mark, redaction knows that a secret may go on
