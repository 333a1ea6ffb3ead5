"""`keys`: the keys of the platform on this machine, for its operator. What is in them is never shown."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from branchline.cli.arguments import Json
from branchline.cli.render import as_json, counted, note, say, table
from branchline.cli.stack import own_settings

app = typer.Typer()
keys = typer.Typer(help="Look at the platform's keys, and put new ones in their places.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("list")
def list_(json: Json = False) -> None:
    """Show each key's file, who may read it, its age and what it is for; never what is in it."""
    from branchline.layout import Layout  # noqa: PLC0415 other commands do without
    from branchline.stack.key_files import inventory  # noqa: PLC0415

    settings = own_settings()
    folder = Layout.load(settings.home).home / "keys"
    found = inventory(folder, foreign_store=bool(settings.vault_url))
    if json:
        as_json({"keys": [asdict(key) | {"made": key.made.isoformat(), "days": key.days} for key in found]})
        return
    table(
        ["file", "mode", "owner", "age", "rotate", "for"],
        [[key.name, key.mode, key.owner, counted(key.days, "day"), key.rotated_as, key.purpose] for key in found],
    )
    say()
    say(f"They lie in {folder}.")


@keys.command()
def rotate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="server, nonprod, production, operator, seal or register.")
    ],
) -> None:
    """Put a new key in the place of an old one, while everything runs.

    Whatever interrupts it, repeating the command goes on where it was.
    """
    from branchline.stack.key_rotation import rotate as rotate_key  # noqa: PLC0415

    rotate_key(own_settings(), name, _tell)
    if name == "register":  # it never leaves OpenBao
        note("Keep its public half where the platform cannot write: branchline audit keys")
    else:
        note("Copy the new key to where you keep copies of the keys.")


def _tell(step: str) -> None:
    say(step)
    sys.stdout.flush()
