"""Reads as much of a Dockerfile as onboarding and checks need: its stages, what they expose and what they run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from branchline.onboarding.shell import Words, valid_port

_INSTRUCTION = re.compile(r"^\s*([A-Za-z]+)\s+(.*)$", re.DOTALL)
_FROM = re.compile(r"^(?:--\S+\s+)*(\S+)(?:\s+[Aa][Ss]\s+(\S+))?\s*$")
_HEREDOC = re.compile(r"<<-?\s*[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?")
_URL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::\d+|:\$\S*?)?(/[^\s\"'|;&)]*)?")

_KNOWN_BASES: tuple[tuple[str, Words, int], ...] = (
    ("nginx", ("nginx", "-g", "daemon off;"), 80),
    ("nginx-unprivileged", ("nginx", "-g", "daemon off;"), 8080),
    ("caddy", ("caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"), 80),
    ("httpd", ("httpd-foreground",), 80),
)
"""Images that people build on without a CMD of their own."""


@dataclass(frozen=True)
class Stage:
    """One stage, with what it takes over from the stage that it begins from. `shell` marks a CMD without a list."""

    name: str | None
    base: str
    ports: tuple[int, ...] = ()
    command: Words | None = None
    shell: bool = False
    entrypoint: Words | None = None
    health_path: str | None = None


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile, in order; what cannot be understood is passed over."""
    found: list[Stage] = []
    for word, rest in _instructions(text):
        if word == "FROM":
            match = _FROM.match(rest)
            if match:
                found.append(_begun(match[1], match[2], found))
        elif found:
            found[-1] = _with(found[-1], word, rest)
    return found


def health_path(text: str) -> str | None:
    """The path of the URL on this machine that a healthcheck's command asks for."""
    match = _URL.search(text)
    return (match[1] or "/") if match else None


def _begun(base: str, name: str | None, before: list[Stage]) -> Stage:
    parent = next((stage for stage in before if stage.name and stage.name.lower() == base.lower()), None)
    if parent:
        return replace(parent, name=name)
    image = base.rpartition("/")[2].partition("@")[0].partition(":")[0]
    for known, command, port in _KNOWN_BASES:
        if image == known:
            return Stage(name, base, (port,), command)
    return Stage(name, base)


def _with(stage: Stage, word: str, rest: str) -> Stage:
    if word == "EXPOSE":
        ports = [valid_port(part.partition("/")[0]) for part in rest.split()]
        own = tuple(port for port in ports if port)
        return replace(stage, ports=(*own, *(port for port in stage.ports if port not in own)))
    if word == "CMD":
        words, shell = _words(rest)
        return replace(stage, command=words, shell=shell)
    if word == "ENTRYPOINT":
        words, _ = _words(rest)
        return replace(stage, entrypoint=words, command=None, shell=False)
    if word == "HEALTHCHECK":
        return replace(stage, health_path=health_path(rest))
    return stage


def _words(rest: str) -> tuple[Words | None, bool]:
    """The list of an instruction's exec form, or the shell with the line of its shell form; and which it was."""
    if rest.lstrip().startswith("["):
        try:
            words = json.loads(rest)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words) or None, False
    return ("sh", "-c", rest.strip()), True


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instructions and what follows them, with continued lines joined and comments and here-documents left out."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = line
        while whole.rstrip().endswith("\\"):
            following = next((other for other in lines if not other.lstrip().startswith("#")), None)
            whole = whole.rstrip()[:-1] + " " + (following or "").strip()
            if following is None:
                break
        for ending in _HEREDOC.findall(whole):
            for body in lines:
                if body.strip() == ending:
                    break
        match = _INSTRUCTION.match(whole)
        if match:
            yield match[1].upper(), match[2].strip()
