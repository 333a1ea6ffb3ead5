"""`config import` and `config export`: settings from and to files, in .env's notation or as JSON."""

from __future__ import annotations

import json as notation
import os
import re
import sys
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from branchline.cli.arguments import Json, LayerName, Project
from branchline.cli.client import connect
from branchline.cli.config_requests import IfVersion, change, counts, where
from branchline.cli.config_texts import content_of, decoded
from branchline.cli.lazily import wire_config
from branchline.cli.render import as_json, counted, note
from branchline.domain.config import check_key, check_settable, check_value
from branchline.domain.errors import BadInput

commands = typer.Typer()

_LARGEST = 8 * 1024 * 1024
"""Bytes of a file: all that a layer can hold, 1 MiB, with every sign escaped."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]*")
"""What needs no quotes in any notation that calls itself .env."""


class Format(StrEnum):
    """Notations of settings."""

    ENV = "env"
    JSON = "json"


FormatOption = Annotated[
    Format | None, typer.Option("--format", help="How it is written.", show_default="by the file's name, else env")
]


@commands.command("import")
def import_(
    project: Project,
    environment: LayerName,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - reads standard input.")],
    format_: FormatOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove the environment's own keys that are not in the file.")
    ] = False,
    if_version: IfVersion = None,
    json: Json = False,
) -> None:
    """Set all settings of a file, all at once.

    JSON is one object of texts, numbers and truth values; null hides a key, as `config unset --hide` does. A .env file
    cannot say that, so --replace leaves hidden keys alone there. Nothing is written where any line makes no sense.
    """
    text, as_is_json = _read(file), _format(file, format_) is Format.JSON
    said = _from_json(text) if as_is_json else {**_from_env(text)}
    values = {key: value for key, value in said.items() if value is not None}
    for key, value in values.items():
        check_value(check_settable(key), value)
    hidden = [check_key(key) for key, value in said.items() if value is None]
    if not said:
        raise BadInput("There is no setting in it.", code="nothing_to_import", hint="A line is KEY=VALUE.")
    gone: list[str] = []
    if replace:
        with connect() as client:
            found = client.get(where(project, environment), wire_config.ConfigKeys)
            mine = client.get_list(where(project, environment, "explanation"), wire_config.KeyExplanation)
        if_version = found.versions[environment] if if_version is None else if_version
        others = [one for one in mine if one.origin.layer == environment and one.key not in said]
        gone = [one.key for one in others if as_is_json or not one.origin.hidden]
        if left := [one.key for one in others if one.key not in gone]:
            note(f"Still hidden, because .env cannot say whether they should be: {', '.join(left)}.")
    changes: dict[str, str | None] = {**dict.fromkeys(gone), **values}
    body = {"changes": changes, "hidden": hidden, "expected_version": if_version}
    done = counts(set_=len(values), hidden=len(hidden), removed=len(gone))
    change(project, environment, body, json=json, done=done)


@commands.command()
def export(
    project: Project,
    environment: LayerName,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file, which only you can read then; - is standard output.")
    ] = "-",
    format_: FormatOption = None,
    own: Annotated[
        bool, typer.Option("--own", help="Only the environment's own layer; JSON says null of what that hides.")
    ] = False,
    json: Json = False,
) -> None:
    """Write all settings of an environment to a file.

    Those that it inherits are among them, unless it is --own. The register notes who did. Production's are never shown.
    """
    if json and file != "-":
        raise BadInput(
            "--json prints the answer, so there is nothing for a file.",
            code="usage",
            hint="Leave --json out; `--format json` writes JSON.",
        )
    if file != "-" and Path(file).exists() and not Path(file).is_file():
        raise BadInput(f"{file} is no ordinary file.", code="file_unwritable", hint="Name another file, or -.")
    with connect() as client:
        found = client.get(where(project, environment, "values"), wire_config.ConfigValues, own="true" if own else None)
    if json:
        as_json(found)
        return
    as_is_json = _format(file, format_) is Format.JSON
    text = _to_json(found.values, found.hidden) if as_is_json else to_env(found.values)
    if found.hidden and not as_is_json:
        note(f"Not in it, because .env cannot say that they are hidden: {', '.join(found.hidden)}. JSON can.")
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        # Made anew, so that a file which others can read does not keep its mode.
        fresh = Path(f"{file}.{os.getpid()}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
                out.write(text)
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadInput(
            f"{file} cannot be written: {error.strerror}.", code="file_unwritable", hint="Name another file, or -."
        ) from None
    among = f", and that it hides {len(found.hidden)}," if found.hidden and as_is_json else ""
    note(f"Wrote {counted(len(found.values), 'setting')} of {project} {environment}{among} to {file}.")


def to_env(values: dict[str, str]) -> str:
    """Settings in .env's notation, so that an import finds the same."""
    lines = []
    for key, value in values.items():
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"{key}={value}\n" if _PLAIN.fullmatch(value) else f"{key}='{escaped}'\n")
    return "".join(lines)


def _to_json(values: dict[str, str], hidden: list[str]) -> str:
    said: dict[str, str | None] = {**values, **dict.fromkeys(hidden)}
    return notation.dumps(dict(sorted(said.items())), indent=2, ensure_ascii=False) + "\n"


def _format(file: str, given: Format | None) -> Format:
    return given or (Format.JSON if file.endswith(".json") else Format.ENV)


def _read(file: str) -> str:
    too_large = BadInput(
        f"{file} is larger than any config can be.", code="file_too_large", hint="All settings together may have 1 MiB."
    )
    try:
        return decoded(content_of(None if file == "-" else Path(file), _LARGEST, too_large), file)
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read: {error.strerror}.", code="file_unreadable", hint="Give the path of a file, or -."
        ) from None


def _from_env(text: str) -> dict[str, str]:
    from dotenv.parser import parse_stream  # noqa: PLC0415 nothing else needs it

    values: dict[str, str] = {}
    for binding in parse_stream(StringIO(text, newline="")):
        line = f"Line {binding.original.line}"
        if binding.error:
            raise BadInput(f"{line} is no setting.", code="bad_env_file", hint="Write KEY=VALUE, quoted where needed.")
        if binding.key is None:
            continue
        if binding.value is None:
            raise BadInput(f"{line}: {binding.key[:60]} has no value.", code="value_missing", hint="Write KEY=VALUE.")
        if binding.key in values:
            raise BadInput(f"{line}: {binding.key} is given twice.", code="given_twice", hint="Give each setting once.")
        values[binding.key] = binding.value
    return values


def _from_json(text: str) -> dict[str, str | None]:
    try:
        # Numbers stay as they are written: 1.10 is not 1.1.
        found = notation.loads(text, object_pairs_hook=_once, parse_int=str, parse_float=str, parse_constant=_no_number)
    except notation.JSONDecodeError as error:
        raise BadInput(
            f"The file is no JSON: line {error.lineno}, column {error.colno}.",
            code="bad_json_file",
            hint='Write one object: {"KEY": "value"}',
        ) from None
    except RecursionError:
        raise BadInput("The file is nested too deeply.", code="bad_json_file", hint="Settings are flat.") from None
    if not isinstance(found, dict):
        raise BadInput(
            "The file holds no JSON object.", code="bad_json_file", hint='Write one object: {"KEY": "value"}'
        )
    values: dict[str, str | None] = {}
    for key, value in found.items():
        if isinstance(value, dict | list):
            raise BadInput(
                f"The value of {key[:60]} is neither text nor number.",
                code="bad_json_file",
                hint="Settings are flat; write a structure as the text of its JSON.",
            )
        values[key] = value if isinstance(value, str) or value is None else notation.dumps(value)
    return values


def _no_number(text: str) -> str:
    raise BadInput(f"{text} is no number in JSON.", code="bad_json_file", hint="Write it as a text, in quotes.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadInput("A key is given twice.", code="given_twice", hint="Give each setting once.")
    return found
