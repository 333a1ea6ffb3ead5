"""`config explain`, `diff`, `history` and `apply`: where settings come from, and what is done with them."""

from __future__ import annotations

from typing import Annotated

import typer

from branchline.cli.arguments import EnvironmentName, Json, LayerName, Project
from branchline.cli.client import connect
from branchline.cli.config_requests import where
from branchline.cli.deploy import follow_to_end
from branchline.cli.lazily import wire, wire_config
from branchline.cli.render import as_json, counted, moment, note, say, table
from branchline.domain.deployment import Trigger

commands = typer.Typer()

_UNKNOWN = "outside of Branchline"


@commands.command()
def explain(
    project: Project,
    environment: LayerName,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Only this setting.")] = None,
    json: Json = False,
) -> None:
    """Show where each setting comes from and what it hides, never its value."""
    with connect() as client:
        found = client.get_list(where(project, environment, "explanation"), wire_config.KeyExplanation, key=key)
    if json:
        as_json(found)
        return
    if not found:
        say(f"No layer of {project} {environment} has any setting.")
        return
    rows = []
    for one in found:
        rows.append(_row(one.key, one.origin))
        rows.extend(_row("  hides", beneath) for beneath in one.hides)
    table(("key", "layer", "version", "set", "by"), rows)
    outside = {(origin.layer, origin.outside) for one in found for origin in (one.origin, *one.hides) if origin.outside}
    for layer, version in sorted(outside, key=str):
        note(f"? Version {version} of {layer} was written outside of Branchline, and may have changed it.")


def _row(key: str, origin: wire_config.KeyOrigin) -> tuple[str, ...]:
    layer = f"{origin.layer} (unset)" if origin.hidden else origin.layer
    by = f"{origin.by} ?" if origin.by and origin.outside else origin.by or _UNKNOWN
    return key, layer, str(origin.version or ""), moment(origin.at), by


@commands.command()
def diff(
    project: Project,
    environment: LayerName,
    other: LayerName,
    json: Json = False,
) -> None:
    """List the settings in which two environments differ, never their values.

    Whether production's values differ from others nobody can see.
    """
    with connect() as client:
        found = client.get_list(where(project, environment, "diff", other), wire_config.ConfigDifference)
    if json:
        as_json(found)
        return
    words = {"left": f"only in {environment}", "right": f"only in {other}", "differs": "differs", "unknown": "in both"}
    if not found:
        say(f"{environment} and {other} of {project} have the same settings.")
        return
    rows = [(one.key, words[one.what], one.left or "", one.right or "") for one in found]
    table(("key", "difference", f"layer in {environment}", f"layer in {other}"), rows)


@commands.command()
def history(
    project: Project,
    environment: LayerName,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Only changes of this setting.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At the most.")] = 20,
    json: Json = False,
) -> None:
    """List the versions of an environment's own settings: who changed which, and when.

    What it inherits has a history of its own: `config history PROJECT develop`, `config history PROJECT _common`.
    """
    with connect() as client:
        found = client.get_list(where(project, environment, "history"), wire_config.ConfigHistory, key=key, limit=limit)
    if json:
        as_json(found)
        return
    if not found:
        say(f"Nothing was ever set in {project} {environment} itself.")
        return
    rows = []
    for one in found:
        keys = ", ".join(f"{name} {done}" if done != "set" else name for name, done in sorted(one.keys.items()))
        rows.append((str(one.version), moment(one.at), one.by or _UNKNOWN, keys + ("" if one.there else " (gone)")))
    table(("version", "at", "by", "keys"), rows)
    note(f"{counted(len(found), 'version')}, newest first.")


@commands.command()
def apply(
    project: Project,
    environment: EnvironmentName,
    reason: Annotated[str, typer.Option(help="Why, for the register.")] = "",
    watch: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
    json: Json = False,
) -> None:
    """Deploy what is live once more, with the newest settings."""
    body = {"trigger": Trigger.CLI.value, "reason": reason}
    with connect() as client:
        asked = client.read(client.send("POST", where(project, environment, "apply"), body), wire.DeploymentView)
        if watch:
            raise typer.Exit(follow_to_end(client, asked, json=json))
    if json:
        as_json(asked)
    else:
        say(f"Deployment {asked.id} of {project} to {environment} is {asked.state}.")
