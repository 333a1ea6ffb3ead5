"""`config`: read and change the settings of an environment, without leaving secrets in a shell's history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from branchline.cli.arguments import EnvironmentName, Json, Project
from branchline.cli.client import connect, path
from branchline.cli.lazily import wire
from branchline.cli.render import as_json, counted, note, say
from branchline.domain.config import check_key, check_value
from branchline.domain.errors import BadInput

app = typer.Typer()
config = typer.Typer(help="Read and change the settings of an environment.", no_args_is_help=True)
app.add_typer(config, name="config")


def _where(project: str, environment: str, *key: str) -> str:
    return path("projects", project, "environments", environment, "config", *key)


@config.command("list")
def list_(project: Project, environment: EnvironmentName, json: Json = False) -> None:
    """List the keys that are set.

    Values are shown one at a time, by `config get`; production's never are.
    """
    with connect() as client:
        found = client.get(_where(project, environment), wire.ConfigKeys)
    if json:
        as_json(found)
        return
    for key in found.keys:
        say(key)
    note(f"{counted(len(found.keys), 'setting')} in {project} {environment}, version {found.version}.")


@config.command()
def get(
    project: Project,
    environment: EnvironmentName,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the setting.")],
    json: Json = False,
) -> None:
    """Print the value of one setting."""
    with connect() as client:
        found = client.get(_where(project, environment, key), wire.ConfigValue)
    if json:
        as_json(found)
    else:
        say(found.value)


@config.command("set")
def set_(
    project: Project,
    environment: EnvironmentName,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="KEY=- reads the value from standard input, KEY=@FILE from a file, KEY alone asks for it.",
        ),
    ],
    json: Json = False,
) -> None:
    """Set one or more settings, all at once.

    The next deployment gives them to the environment.
    """
    if sum(setting.partition("=")[2] == "-" for setting in settings) > 1:
        raise BadInput(
            "Only one value can come from standard input.",
            code="input_used_twice",
            hint="Give the others as KEY=@FILE, or set them one by one.",
        )
    changes: dict[str, str | None] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        check_key(key)
        if key in changes:
            raise BadInput(f"{key} is given twice.", code="given_twice", hint="Give each setting once.")
        value = _value(key, text) if equals else _asked(key)
        check_value(key, value)
        changes[key] = value
    _change(project, environment, changes, json=json, done=f"Set {counted(len(changes), 'setting')}")


@config.command()
def unset(
    project: Project,
    environment: EnvironmentName,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Names of the settings.")],
    json: Json = False,
) -> None:
    """Remove one or more settings, all at once."""
    changes: dict[str, str | None] = {check_key(key): None for key in keys}
    _change(project, environment, changes, json=json, done=f"Removed {counted(len(changes), 'setting')}")


def _change(project: str, environment: str, changes: dict[str, str | None], *, json: bool, done: str) -> None:
    with connect() as client:
        answer = client.send("PATCH", _where(project, environment), {"changes": changes})
        version = client.read(answer, wire.ConfigVersion)
    if json:
        as_json(version)
    else:
        say(f"{done} in {project} {environment}; the config is at version {version.version} now.")
        note("The next deployment gives it to the environment.")


def _value(key: str, given: str) -> str:
    """What stands behind `KEY=`: `-` means standard input, `@FILE` a file, anything else itself."""
    if given == "-":
        return _text(sys.stdin.buffer.read(), key)
    if not given.startswith("@"):
        return given
    try:
        return _text(Path(given[1:]).read_bytes(), key)
    except OSError as error:
        raise BadInput(
            f"The file for {key} cannot be read: {error.strerror}.",
            code="file_unreadable",
            hint=f"A value that itself begins with @ comes through standard input: {key}=-",
        ) from None


def _asked(key: str) -> str:
    if not sys.stdin.isatty():
        raise BadInput(
            f"{key} has no value.",
            code="value_missing",
            hint=f"Write {key}=VALUE, or {key}=- to read it from standard input. `config unset` removes a setting.",
        )
    return str(typer.prompt(f"{key}", hide_input=True, err=True))


def _text(content: bytes, key: str) -> str:
    """Text without the newline that editors and `echo` put at its end."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadInput(
            f"The value of {key} is not text in UTF-8.", code="bad_value", hint="Encode binary values, as base64."
        ) from None
    return text.removesuffix("\n").removesuffix("\r")
