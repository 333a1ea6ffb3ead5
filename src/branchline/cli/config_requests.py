"""Requests about config that several commands make."""

from __future__ import annotations

from typing import Any

from branchline.cli.client import connect, path
from branchline.cli.lazily import wire_config
from branchline.cli.render import as_json, note, say
from branchline.domain.layers import COMMON


def where(project: str, environment: str, *rest: str) -> str:
    """The address of an environment's config, or of something about it."""
    return path("projects", project, "environments", environment, "config", *rest)


def change(project: str, environment: str, body: dict[str, Any], *, json: bool, done: str) -> None:
    """Ask for a change, and say what came of it."""
    with connect() as client:
        answer = client.send("PATCH", where(project, environment), body)
        version = client.read(answer, wire_config.ConfigVersion)
    if json:
        as_json(version)
    else:
        say(f"{done} in {project} {environment}; the config is at version {version.version} now.")
        place = "ENV" if environment == COMMON else environment
        note(f"The next deployment takes it up; `branchline config apply {project} {place}` makes one.")
