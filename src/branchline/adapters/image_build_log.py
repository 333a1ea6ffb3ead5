"""What BuildKit says while it builds, made readable; and what it was that failed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from branchline.domain.config import Secret
from branchline.ports import Log

_STEP = re.compile(r"#(\d+) (.*)", re.DOTALL)
_OUTPUT = re.compile(r"\d+\.\d+ (.*)|\d+\.\d+$", re.DOTALL)
_NOISE = re.compile(
    r"sha256:[0-9a-f]{64}|(?:extracting|resolve|exporting|writing|naming|unpacking|preparing|sending|importing|inferred)\b"
    r"|transferring (?:dockerfile|context: [\d.]+k?B)|\.\.\.$|ERROR: |CANCELED"
)
_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_DONE = re.compile(r"DONE ([\d.]+)s")
_GLUED = re.compile(r"#(\d+) (?:DONE [\d.]+s|ERROR: .*|CANCELED)$", re.DOTALL)
_INTERNAL = re.compile(r"\[internal\] (?!load metadata)|\[auth\]")


class BuildLog:
    """A Log that BuildKit's plain progress is written to; steps and their output go on to the real one.

    `failed_step` is the step that failed, as BuildKit names it; `complaint` what it said in the end.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._names: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._current = ""
        self._after_rule = self._repeating = False
        self._last: list[str] = []
        self._lacking: set[str] = set()
        self.failed_step = ""

    def write(self, line: str) -> None:
        """Take one line of BuildKit's."""
        if match := _STEP.fullmatch(line):
            self._step(match[1], match[2])
            return
        # Towards the end comes, between two rules, the name of the failed step and its last output once more.
        if re.fullmatch("-{6,}", line):
            self._after_rule = not self._repeating
            self._repeating = False
        elif self._after_rule and line.startswith(" > "):
            self.failed_step = line[3:].rstrip().removesuffix(":")
            self._after_rule, self._repeating = False, True
        elif line.strip() and not self._repeating:
            self._after_rule = False
            self._last = [*self._last[-19:], line.strip()]
            self._log.write(line)

    def hide(self, secrets: Sequence[Secret]) -> None:
        """See ports.Log."""
        self._log.hide(secrets)

    @property
    def last(self) -> str:
        """See ports.Log."""
        return self._log.last

    @property
    def last_words(self) -> str:
        """The last line that the failed step wrote, as it stands in the log; empty where it wrote nothing."""
        number = next((number for number, name in self._names.items() if name == self.failed_step), "")
        return self._words.get(number, "").strip()

    @property
    def lacked_room(self) -> bool:
        """Whether the failed step wrote that a disk is full."""
        return any(self._names[number] == self.failed_step for number in self._lacking)

    @property
    def complaint(self) -> str:
        """The last lines that belong to no step: BuildKit's own words."""
        return "\n".join(self._last)

    def _step(self, number: str, text: str) -> None:
        name = self._names.get(number)
        if name is None:
            self._names[number] = text
            if not _INTERNAL.match(text):
                self._show(number, text)
        elif output := _OUTPUT.fullmatch(text):
            said = output[1] or ""
            if (
                (glued := _GLUED.search(said)) and glued[1] == number and glued.start()
            ):  # the step's output ended without a newline
                said = said[: glued.start()]
            self._show(number, f"  {said}")
            self._words[number] = self._log.last
            if _FULL.search(said):
                self._lacking.add(number)
        elif text == "CACHED":
            self._show(number, "  (cached)")
        elif done := _DONE.match(text):
            if float(done[1]) >= 0.5:
                self._show(number, f"  ({done[1]} s)")
        elif text != name and not _NOISE.match(text):
            self._show(number, f"  {text}")

    def _show(self, number: str, line: str) -> None:
        """Steps run side by side: say whose output follows when it changes."""
        if number != self._current and self._current and line != self._names[number]:
            self._log.write(self._names[number])
        self._current = number
        self._log.write(line)
