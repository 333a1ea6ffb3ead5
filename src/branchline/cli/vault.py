"""`vault`: for operators, of a Vault of one's own that the platform is to use, or of the embedded OpenBao."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import typer

from branchline.cli.credentials import warn_of_listeners
from branchline.cli.render import counted, note, say
from branchline.cli.stack import own_settings
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput

app = typer.Typer()
vault = typer.Typer(help="Use a Vault of your own, or get into the embedded OpenBao.", no_args_is_help=True)
app.add_typer(vault, name="vault")

STDIN = "-"
OUTCOME_WIDTH = 10


@vault.command()
def setup(
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="URL", help="Address of the Vault.", show_default="the setting vault_url"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="-", help="`-` reads the token from standard input.", show_default="VAULT_TOKEN"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written as HCL; needs neither server nor token.")
    ] = False,
    keep_token: Annotated[bool, typer.Option("--keep-token", help="Do not revoke the token afterwards.")] = False,
) -> None:
    """Write the platform's mounts, policies and roles to a Vault, with a token of its operator.

    What is as it should be is left alone, so it may be run again at any time. The token comes from standard input,
    from VAULT_TOKEN, or is asked for; it is revoked in the end.
    """
    from branchline.stack import external_vault  # noqa: PLC0415 other commands do without

    settings = own_settings()
    if dry_run:
        say(external_vault.script(settings).rstrip())
        return
    if not (asked := address or settings.vault_url):
        raise BadInput(
            "The address of the Vault is missing.",
            code="address_missing",
            hint="`branchline vault setup --address URL`",
        )
    url = external_vault.check_address(asked)
    warn_of_listeners(url)
    written = external_vault.set_up(settings, url, _token(token), _tell, keep_token=keep_token)
    say(f"{counted(written, 'path')} written." if written else "Nothing had to be changed.")
    if keep_token:
        note("The token was not revoked: it is as good as before.")
    if settings.vault_url.rstrip("/") != url:
        note(f'To use it: vault_url = "{url}" in {settings.home / "settings.toml"}, then `branchline stop` and `up`.')


@vault.command()
def login(
    export: Annotated[
        bool, typer.Option("--export", help="Log in, and print the address and the token as lines for a shell.")
    ] = False,
) -> None:
    """Get into the embedded OpenBao as its operator, to mend what can only be mended there.

    For whoever may read the platform's keys. The token may do everything, for five minutes, and is printed only with
    --export, for `eval`: there it does not stay on a screen.
    """
    from branchline.stack import operator_login  # noqa: PLC0415 other commands do without

    settings = own_settings()
    address = operator_login.address_of(settings)
    if not export:
        say(address)
        note('To log in, for five minutes: eval "$(branchline vault login --export)"')
        return
    token = operator_login.log_in(settings)
    say(f"export BAO_ADDR={shlex.quote(address)}")
    say(f"export BAO_TOKEN={shlex.quote(token.reveal())}")


def _token(given: str | None) -> Secret:
    if given not in {None, STDIN}:
        raise BadInput(
            "A token does not belong on a command line: everybody on this machine can read it there.",
            code="token_on_command_line",
            hint="Revoke that one. Pass another with VAULT_TOKEN, or to `--token -` on standard input.",
        )
    if given is None and (variable := os.environ.get("VAULT_TOKEN", "").strip()):
        return Secret(variable)
    if sys.stdin.isatty():
        return Secret(str(typer.prompt("Token", hide_input=True, err=True)).strip())
    piped = sys.stdin.read(10_000).strip() if given == STDIN else ""
    if not piped:
        raise BadInput(
            "The token is missing.",
            code="token_missing",
            hint="Set VAULT_TOKEN, or pass it to `branchline vault setup --token -` on standard input.",
        )
    return Secret(piped)


def _tell(outcome: str, path: str) -> None:
    say(f"{outcome.ljust(OUTCOME_WIDTH)} {path}")
    sys.stdout.flush()
