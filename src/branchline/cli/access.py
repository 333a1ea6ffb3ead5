"""`login`, `whoami`, `token`, `audit`: who asks, who may, and who did what."""

from __future__ import annotations

import json as json_module
import os
import sys
from typing import Annotated

import typer

from branchline import __version__
from branchline.cli.arguments import Json
from branchline.cli.client import Client, connect, path
from branchline.cli.credentials import Access, check_url, own_platform, store, warn_of_listeners
from branchline.cli.lazily import wire
from branchline.cli.render import as_json, facts, is_terminal, moment, note, say, table
from branchline.domain.access import Role
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput

app = typer.Typer()
token = typer.Typer(help="Make, list and revoke tokens.", no_args_is_help=True)
audit = typer.Typer(help="Read the register of who did what.", no_args_is_help=True)
app.add_typer(token, name="token")
app.add_typer(audit, name="audit")


@app.command()
def login(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="Address of the platform.", show_default="is asked for")
    ] = None,
) -> None:
    """Store the address of a platform and a token for it.

    The token is asked for, or read from standard input.
    """
    asked = url or os.environ.get("BRANCHLINE_URL") or _asked_url()
    address = check_url(asked)
    warn_of_listeners(address)
    access = Access(address, _token(address))
    with Client(access) as client:
        who = client.get("whoami", wire.WhoAmI)
    file = store(access)
    say(f"Logged in to {address} as {who.name} ({who.role}). Stored in {file}.")
    if os.environ.get("BRANCHLINE_URL") or os.environ.get("BRANCHLINE_TOKEN"):
        note("BRANCHLINE_URL and BRANCHLINE_TOKEN are set, and win over what was stored.")


def _asked_url() -> str:
    own = own_platform()
    if own and not sys.stdin.isatty():
        return own.url
    if not sys.stdin.isatty():
        raise BadInput(
            "The address of the platform is missing.", code="url_missing", hint="`branchline login URL < token-file`"
        )
    return str(typer.prompt("Address of the platform", default=own.url if own else None, err=True))


def _token(address: str) -> Secret:
    if given := os.environ.get("BRANCHLINE_TOKEN"):
        return Secret(given.strip())
    if sys.stdin.isatty():
        return Secret(str(typer.prompt("Token", hide_input=True, err=True)).strip())
    if piped := sys.stdin.read(10_000).strip():
        return Secret(piped)
    own = own_platform()
    if own and own.url == address:
        return own.token
    raise BadInput("The token is missing.", code="token_missing", hint="`branchline login URL < token-file`")


@app.command()
def whoami(json: Json = False) -> None:
    """Say who you are to the platform."""
    with connect() as client:
        who = client.get("whoami", wire.WhoAmI)
        where = client.url
    if json:
        as_json(who)
        return
    facts(
        [
            ("name", who.name),
            ("role", who.role),
            ("proof", who.proof),
            ("platform", f"{where}, version {who.version}"),
            ("command line", f"version {__version__}" if who.version != __version__ else None),
        ]
    )


@token.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what it is for.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.DEVELOPER,
    json: Json = False,
) -> None:
    """Make a token. It is shown this one time."""
    with connect() as client:
        answer = client.send("POST", "tokens", {"name": name, "role": role.value})
        made = client.read(answer, wire.TokenShown)
        where = client.url
    if json:
        as_json(made)
        return
    if is_terminal(sys.stdout):
        note(f"The token of {made.name} ({made.role}). It is not shown again:")
    say(made.token)
    if is_terminal(sys.stdout):
        note(f"To use it: branchline login {where}")


@token.command("list")
def list_tokens(json: Json = False) -> None:
    """List tokens; what they are is not shown."""
    with connect() as client:
        tokens = client.get_list("tokens", wire.TokenView)
    if json:
        as_json(tokens)
        return
    table(
        ("name", "role", "made", "last used"),
        [(item.name, item.role, moment(item.created_at), moment(item.last_used_at) or "never") for item in tokens],
    )


@token.command()
def revoke(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]) -> None:
    """Make a token worthless, at once."""
    with connect() as client:
        client.send("DELETE", path("tokens", name))
    say(f"The token of {name} is revoked.")


@audit.command("list")
def list_audit(
    project: Annotated[str | None, typer.Option(help="Only what concerns this project.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only those with a lower number.")] = None,
    json: Json = False,
) -> None:
    """List audit events, newest first."""
    with connect() as client:
        lines = client.get_list("audit", wire.AuditLine, project=project, limit=limit, before=before)
    if json:
        as_json(lines)
        return
    table(
        ("id", "at", "actor", "what", "where", "deployment", "detail"),
        [
            (
                str(line.id),
                moment(line.at),
                line.actor,
                line.kind,
                " ".join(part for part in (line.project, line.environment) if part),
                str(line.deployment or ""),
                json_module.dumps(line.detail, ensure_ascii=False) if line.detail else "",
            )
            for line in lines
        ],
    )
