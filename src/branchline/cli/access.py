"""`login`, `logout`, `whoami`: who asks, and what they may."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from branchline import __version__
from branchline.cli.arguments import Json
from branchline.cli.client import Client, connect
from branchline.cli.credentials import Access, check_url, forget, own_platform, store, stored, warn_of_listeners
from branchline.cli.device_login import device_token
from branchline.cli.lazily import wire_logins, wire_people
from branchline.cli.people import in_words
from branchline.cli.render import as_json, counted, facts, moment, note, say
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, Unauthenticated

app = typer.Typer()


@app.command()
def login(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="Address of the platform.", show_default="is asked for")
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Ask for a token, also where a browser would do.")] = False,
) -> None:
    """Log in to a platform, with a browser or a token, and store the login.

    Where people log in with a provider, a code is shown that is confirmed in a browser. Else a token is asked for. From
    a pipe the token is read.
    """
    asked = url or os.environ.get("BRANCHLINE_URL") or _asked_url()
    address = check_url(asked)
    warn_of_listeners(address)
    access = Access(address, _token(address, typed=token))
    with Client(access) as client:
        who = client.get("whoami", wire_people.WhoAmI)
    file = store(access)
    say(f"Logged in to {address} as {who.name} ({in_words(who.roles)}). Stored in {file}.")
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


def _token(address: str, *, typed: bool) -> Secret:
    if given := os.environ.get("BRANCHLINE_TOKEN"):
        return Secret(given.strip())
    if sys.stdin.isatty() and not typed and (confirmed := device_token(address)):
        return confirmed
    if sys.stdin.isatty():
        return Secret(str(typer.prompt("Token", hide_input=True, err=True)).strip())
    if piped := sys.stdin.read(10_000).strip():
        return Secret(piped)
    own = own_platform()
    if own and own.url == address:
        return own.token
    raise BadInput("The token is missing.", code="token_missing", hint="`branchline login URL < token-file`")


@app.command()
def logout(
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Log out of every browser, too. Other tokens stay.")
    ] = False,
) -> None:
    """Revoke the token that `branchline login` stored, and forget it."""
    access = stored()
    if access is None:
        raise Unauthenticated(
            "No login is stored here.",
            code="not_logged_in",
            hint="A token in BRANCHLINE_TOKEN is revoked with `branchline token revoke NAME`.",
        )
    own = own_platform()
    try:
        with Client(access) as client:
            if everywhere:
                ended = client.read(client.send("DELETE", "sessions"), wire_logins.Ended).sessions
                say(f"Logged out of {counted(ended, 'browser')}.")
            if own is None or own.token != access.token:  # which is the machine's own, and stays its way in
                client.send("POST", "logout")
    except Unauthenticated:
        note("The stored token was worth nothing any more.")
    file = forget()
    say(f"Logged out of {access.url}. {file} is removed.")


@app.command()
def whoami(json: Json = False) -> None:
    """Say who you are to the platform."""
    with connect() as client:
        who = client.get("whoami", wire_people.WhoAmI)
        where = client.url
    if json:
        as_json(who)
        return
    facts(
        [
            ("name", who.name),
            ("roles", in_words(who.roles)),
            ("proof", who.proof),
            ("good until", moment(who.until)),
            ("narrowed to projects", ", ".join(who.projects) if who.projects is not None else None),
            ("narrowed to permissions", ", ".join(who.permissions) if who.permissions is not None else None),
            ("platform", f"{where}, version {who.version}"),
            ("command line", f"version {__version__}" if who.version != __version__ else None),
        ]
    )
