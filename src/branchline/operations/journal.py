"""The journal of a deployment: its log, live and bounded, with secrets hidden."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke
from branchline.domain.printable import cut
from branchline.domain.redaction import Redactor
from branchline.records import Store

LINE_LIMIT = 17 * 1024
"""Characters of one line that are kept: a little more than of the lines of a stream, which are not cut twice."""
TAIL_LINES = 200
_RECENT_LINES = 20
_FLUSH_SECONDS = 0.1
_BATCH = 2000


class DeploymentLog:
    """Port `Log`: lines go to the store ten times a second, from a thread of its own.

    A log holds `limit` characters at the most. What comes after that is left out, but for the last lines, which
    say what went wrong: they are added when the stage ends, behind a line that says how many are missing.
    """

    def __init__(
        self,
        store: Store,
        deployment: int,
        limit: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._deployment = deployment
        self._limit = limit
        self._now = now
        self._size = store.log_size(deployment)
        self.muted = False
        """Nothing is written while it is set."""
        self._redactor = Redactor()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: deque[tuple[datetime, str, str]] = deque()
        self._tail: deque[tuple[datetime, str, str]] = deque(maxlen=TAIL_LINES)
        self._left_out = 0
        self._recent: deque[str] = deque(maxlen=_RECENT_LINES)
        self._stage = ""
        self._closed = threading.Event()
        self._flusher = threading.Thread(target=self._flush_often, name=f"log-{deployment}", daemon=True)
        self._flusher.start()

    def begin(self, stage: str) -> None:
        """Lines from now on belong to this stage, or to whatever else is done about the deployment."""
        with self._lock:
            self._stage = stage
            self._recent.clear()

    def hide(self, secrets: Sequence[Secret]) -> None:
        """From now on these values appear as `[hidden]`."""
        with self._lock:
            self._redactor.hide(secret.reveal() for secret in secrets)

    def clean(self, text: str) -> str:
        """A text without secrets, and without what a database cannot store."""
        with self._lock:
            return self._redactor.redact(text).replace("\x00", "␀").encode(errors="replace").decode()

    def write(self, line: str) -> None:
        """Add one line."""
        with self._lock:
            # Redacting before the cut, lest half a secret stays; but not all of a line that nobody will read, of
            # which the mark says that it went on: a secret that reaches beyond it is hidden as well.
            text = line.rstrip("\r\n")
            if (more := len(text) - 2 * LINE_LIMIT) > 0:
                text = cut(text[: 2 * LINE_LIMIT], more, "characters")
            text = self._redactor.redact(text)
            if len(text) > LINE_LIMIT:
                text = cut(text[:LINE_LIMIT], len(line) - LINE_LIMIT, "characters")
            if text.strip():
                self._recent.append(text)
            if self.muted:
                return
            entry = (self._now(), self._stage, text)
            if self._size < self._limit:
                self._size += len(text) + 1
                self._waiting.append(entry)
            else:
                self._left_out += 1
                self._tail.append(entry)

    @property
    def last(self) -> str:
        """The last line of the stage that was not empty, as it stands in the log."""
        with self._lock:
            return self._recent[-1] if self._recent else ""

    def last_lines(self, count: int) -> list[str]:
        """The stage's last lines that are not empty; where another process was at it, those that the store has."""
        with self._lock:
            recent = list(self._recent)
        if not recent:
            with suppress(PlatformBroke):
                recent = [
                    line
                    for line in self._store.last_lines(self._deployment, self._stage, _RECENT_LINES)
                    if line.strip()
                ]
        return recent[-count:]

    def end_stage(self) -> None:
        """Write out what is waiting, and the end of what was left out."""
        with self._lock:
            if self._left_out:
                if (missing := self._left_out - len(self._tail)) > 0:
                    note = f"… {missing} lines left out: the log has reached its limit of {self._limit} characters …"
                    self._waiting.append((self._now(), self._stage, note))
                self._waiting.extend(self._tail)
                self._tail.clear()
                self._left_out = 0
        self._flush()

    def close(self) -> None:
        """Write out everything and end the thread."""
        self.end_stage()
        self._closed.set()
        self._flusher.join(timeout=5)

    def _flush_often(self) -> None:
        while not self._closed.wait(_FLUSH_SECONDS):
            self._flush()

    def _flush(self) -> None:
        # One writer at a time keeps the order of lines; the lock for `write` is not held while the database works.
        with self._writing:
            while True:
                with self._lock:
                    batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                if not batch:
                    return
                try:
                    self._store.append_log(self._deployment, batch)
                except PlatformBroke:
                    # The database is away. The lines wait for it, in the bounds that the log has anyway.
                    with self._lock:
                        self._waiting.extendleft(reversed(batch))
                    return
