"""Requests about config that several commands make."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from branchline.cli.client import connect, path
from branchline.cli.lazily import wire_config
from branchline.cli.render import as_json, counted, note, say
from branchline.domain.layers import COMMON

IfVersion = Annotated[
    int | None,
    typer.Option("--if-version", min=0, help="Change nothing where its config has another version by now."),
]


def where(project: str, environment: str, *rest: str) -> str:
    """The address of an environment's config, or of something about it."""
    return path("projects", project, "environments", environment, "config", *rest)


def counts(*, set_: int = 0, hidden: int = 0, removed: int = 0) -> str:
    """What a change does: `Set 2 settings, hid 1 and removed 1`."""
    parts = [(verb, number) for verb, number in (("set", set_), ("hid", hidden), ("removed", removed)) if number]
    words = [f"{verb} {number if place else counted(number, 'setting')}" for place, (verb, number) in enumerate(parts)]
    told = " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    return told[:1].upper() + told[1:]


def change(project: str, environment: str, body: dict[str, Any], *, json: bool, done: str) -> None:
    """Ask for a change, and say what came of it."""
    with connect() as client:
        answer = client.send("PATCH", where(project, environment), body)
        version = client.read(answer, wire_config.ConfigVersion)
    if json:
        as_json(version)
    else:
        say(f"{done} in {project} {environment}; the config is at version {version.version} now.")
    if not version.environment_exists:
        meant = f" Did you mean {version.perhaps_meant}?" if version.perhaps_meant else ""
        note(f"{project} has no environment {environment} yet: its first deployment takes this up.{meant}")
    elif not json:
        place = "ENV" if environment == COMMON else environment
        note(f"The next deployment takes it up; `branchline config apply {project} {place}` makes one.")
