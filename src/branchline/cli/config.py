"""`config`: read and change the settings of an environment, without leaving secrets in a shell's history.

An environment's settings lie in layers: the project's own (`_common`), develop's, its own. Where a command names an
environment, `_common` may stand too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from branchline.cli import config_files, config_origins
from branchline.cli.arguments import Json, LayerName, Project
from branchline.cli.client import connect
from branchline.cli.config_requests import IfVersion, change, counts, where
from branchline.cli.config_texts import content_of, decoded
from branchline.cli.lazily import wire_config
from branchline.cli.render import as_json, counted, note, say, table
from branchline.domain.config import MAX_VALUE_BYTES, check_key, check_settable, check_value, too_long
from branchline.domain.errors import BadInput

app = typer.Typer()
config = typer.Typer(help="Read and change the settings of an environment.", no_args_is_help=True)
app.add_typer(config, name="config")
config.add_typer(config_files.commands)
config.add_typer(config_origins.commands)

_LONGEST = MAX_VALUE_BYTES + 5
"""Bytes that are read of a value: a mark may stand before it, and a newline behind."""


@config.command("list")
def list_(project: Project, environment: LayerName, json: Json = False) -> None:
    """List the keys that are set, each with the layer it comes from.

    Values are shown one at a time, by `config get`; production's never are.
    """
    with connect() as client:
        found = client.get(where(project, environment), wire_config.ConfigKeys)
    if json:
        as_json(found)
        return
    if found.keys:
        table(("key", "layer"), list(found.keys.items()))
    versions = ", ".join(f"{layer} {version}" for layer, version in found.versions.items())
    note(f"{counted(len(found.keys), 'setting')} in {project} {environment}; versions: {versions}.")


@config.command()
def get(
    project: Project,
    environment: LayerName,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the setting.")],
    json: Json = False,
) -> None:
    """Print the value of one setting."""
    check_key(key)
    with connect() as client:
        found = client.get(where(project, environment, "keys", key), wire_config.ConfigValue)
    if json:
        as_json(found)
    else:
        say(found.value)


@config.command("set")
def set_(
    project: Project,
    environment: LayerName,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="KEY=- reads the value from standard input, KEY=@FILE from a file, KEY alone asks for it.",
        ),
    ],
    if_version: IfVersion = None,
    json: Json = False,
) -> None:
    """Set one or more settings, all at once.

    The next deployment gives them to the environment; `config apply` deploys what is live once more.
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
        check_settable(key)
        if key in changes:
            raise BadInput(f"{key} is given twice.", code="given_twice", hint="Give each setting once.")
        value = _value(key, text) if equals else _asked(key)
        check_value(key, value)
        changes[key] = value
    done = counts(set_=len(changes))
    change(project, environment, {"changes": changes, "expected_version": if_version}, json=json, done=done)


@config.command()
def unset(
    project: Project,
    environment: LayerName,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Names of the settings.")],
    hide: Annotated[
        bool, typer.Option("--hide", help="Unset them here even where the environment inherits them.")
    ] = False,
    if_version: IfVersion = None,
    json: Json = False,
) -> None:
    """Remove one or more settings, all at once.

    What the environment inherits under these names shows again, unless it is hidden with --hide.
    """
    names = [check_key(key) for key in keys]
    body: dict[str, Any] = {"hidden": names} if hide else {"changes": dict.fromkeys(names)}
    done = counts(hidden=len(names)) if hide else counts(removed=len(names))
    change(project, environment, body | {"expected_version": if_version}, json=json, done=done)


def _value(key: str, given: str) -> str:
    """What stands behind `KEY=`: `-` means standard input, `@FILE` a file, anything else itself."""
    if given != "-" and not given.startswith("@"):
        return given
    try:
        content = content_of(None if given == "-" else Path(given[1:]), _LONGEST, too_long(key))
    except OSError as error:
        raise BadInput(
            f"The file for {key} cannot be read: {error.strerror}.",
            code="file_unreadable",
            hint=f"A value that itself begins with @ comes through standard input: {key}=-",
        ) from None
    # Without the newline that editors and `echo` put at its end.
    return decoded(content, f"The value of {key}").removesuffix("\n").removesuffix("\r")


def _asked(key: str) -> str:
    if not sys.stdin.isatty():
        raise BadInput(
            f"{key} has no value.",
            code="value_missing",
            hint=f"Write {key}=VALUE, or {key}=- to read it from standard input. `config unset` removes a setting.",
        )
    return str(typer.prompt(f"{key}", hide_input=True, err=True))
