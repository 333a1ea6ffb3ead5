"""Commands as shells take them, turned into commands that need no shell where that is possible."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

Words = tuple[str, ...]

_PORT = re.compile(r"\$PORT\b|\$\{PORT(?::?[-=][^}]*)?\}")
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_MIGRATION = re.compile(
    r"manage\.py migrate|alembic upgrade|flask db upgrade|prisma migrate deploy|(?:sequelize|knex|typeorm)\S* .*migrat"
    r"|(?:npm|yarn|pnpm)(?: run)? (?:db:)?migrate|rails db:migrate"
)
_SHELLS = {"sh", "bash", "ash", "dash", "/bin/sh", "/bin/bash", "/bin/ash", "/bin/dash"}
_LISTENS = re.compile(
    r"(?:--bind[= ]|-b[= ]?|--host[= ])\S*?:(\d{2,5})\b|(?:--port[= ]|--http-port[= ]|-p[= ])(\d{2,5})\b"
    r"|\b(?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::\]|\*):(\d{2,5})\b"
)


@dataclass(frozen=True)
class Command:
    """What to run: `words` without a shell, or through `sh -c` where only a shell can do it."""

    words: Words
    variables: dict[str, str] = field(default_factory=dict)
    first: tuple[Words, ...] = ()
    """Migrations that stood before it, to run once per deployment."""

    @property
    def usable(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.words and self.words[0])


def is_shell(words: Words) -> bool:
    """Whether these words hand a script to a shell."""
    return len(words) > 2 and words[0] in _SHELLS and words[1].startswith("-") and "c" in words[1]


def has_shell_features(text: str) -> bool:
    """Whether only a shell would understand this: variables, pipes, several commands, redirections, patterns."""
    quote = ""
    escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\" and quote != "'":
            escaped = True
        elif quote:
            if letter == quote:
                quote = ""
            elif quote == '"' and letter in "$`":
                return True
        elif letter in "'\"":
            quote = letter
        elif letter in "$`|&;<>()*?~\n":
            return True
    return bool(quote)


def understood(text: str, port: int | None, *, apart: bool = True) -> Command:
    """Turn a line for a shell into a command. `$PORT` becomes the port; `apart`: migrations before `&&` come apart."""
    text = text.replace("\x00", "")
    if port is not None:
        text = _PORT.sub(str(port), text)
    parts = [part.strip() for part in re.split(r"\s*&&\s*", text.strip())]
    first: list[Words] = []
    while apart and len(parts) > 1 and _MIGRATION.search(parts[0]) and not has_shell_features(parts[0]):
        first.append(_split(parts.pop(0)))
    text = " && ".join(parts)
    if not has_shell_features(text):
        words = list(_split(text))
        variables: dict[str, str] = {}
        while len(words) > 1 and _ASSIGNMENT.match(words[0]):
            key, _, value = words.pop(0).partition("=")
            variables[key] = value
        if len(words) > 1 and words[0] == "exec":
            words.pop(0)
        return Command(tuple(words), variables, tuple(first))
    alone = len(parts) == 1 and not re.search(r"[|&;\n()]", text)
    # `exec`: the shell makes way for the program, which then hears SIGTERM and can stop in peace.
    script = f"exec {text}" if alone and not text.startswith("exec ") and not _ASSIGNMENT.match(text) else text
    return Command(("sh", "-c", script), {}, tuple(first))


def settled(words: Words, port: int | None) -> Command:
    """The same for a list of words; `sh -c` is opened where it turns out that no shell is needed."""
    words = tuple(word.replace("\x00", "") for word in words)
    if is_shell(words) and len(words) == 3:
        return understood(words[2], port)
    if port is not None:
        words = tuple(_PORT.sub(str(port), word) for word in words)
    return Command(words)


def is_migration(words: Words) -> bool:
    """Whether this migrates a database."""
    return bool(_MIGRATION.search(" ".join(words)))


def port_in(words: Words) -> int | None:
    """The port that a command says it listens on."""
    found = _LISTENS.search(" ".join(words))
    number = next((group for group in found.groups() if group), None) if found else None
    return valid_port(number)


def valid_port(number: str | int | None) -> int | None:
    """A TCP port, or None."""
    try:
        port = int(number) if number is not None else 0
    except ValueError:
        return None
    return port if 1 <= port <= 65535 else None


def shown(words: Words) -> str:
    """The words as one line."""
    return shlex.join(words)


def _split(text: str) -> Words:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return ("sh", "-c", text)
