"""Finds the command among the modules, runs it, and turns whatever goes wrong into words and an exit status."""

from __future__ import annotations

import os
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer
from typer.main import get_command

from branchline import __version__
from branchline.cli import render
from branchline.domain.errors import BadInput, BranchlineError, PlatformBroke

NAME = "branchline"
INTERRUPTED = 130

COMMANDS = {
    "up": "stack",
    "stop": "stack",
    "status": "stack",
    "doctor": "stack",
    "init": "projects",
    "project": "projects",
    "schema": "projects",
    "deploy": "deploy",
    "deployments": "deploy",
    "env": "environments",
    "config": "config",
    "login": "access",
    "logout": "access",
    "whoami": "access",
    "token": "people",
    "member": "people",
    "audit": "audit",
    "vault": "vault",
    "keys": "keys",
}
"""Every command and the module that holds it. Only that one is loaded: the others would cost time."""


def invoke(words: list[str]) -> int:
    """Run the command that the words name; print what goes wrong, and return the exit status."""
    try:
        return _run_command(words)
    except typer.Exit as ended:
        return ended.exit_code
    except (typer.Abort, EOFError):
        return INTERRUPTED
    except typer.TyperException as refused:
        return _usage(refused, words)
    except BranchlineError as failure:
        _show_trace()
        render.error(failure, with_json="--json" in words)
        return failure.exit_status
    except BrokenPipeError:
        raise
    except Exception as fault:
        _show_trace()
        sentence = f"The command line itself failed: {type(fault).__name__}: {fault}"
        hint = "This is a fault of Branchline. BRANCHLINE_DEBUG=1 shows where it happened."
        render.error(PlatformBroke(sentence, code="internal", hint=hint), with_json="--json" in words)
        return PlatformBroke.exit_status


def _run_command(words: list[str]) -> int:
    app = typer.Typer(
        name=NAME,
        help="Every branch its own environment, production only by a tag, every move in the register.",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback(invoke_without_command=True)
    def branchline(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if version:
            render.say(f"{NAME} {__version__}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            render.say(context.get_help())
            raise typer.Exit

    first = words[0] if words else ""
    wanted = [COMMANDS[first]] if first in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for module in wanted:
        if find_spec(f"branchline.cli.{module}"):
            app.add_typer(import_module(f"branchline.cli.{module}").app)
    command = get_command(app)
    if f"_{NAME.upper()}_COMPLETE" in os.environ:
        command.main(words, prog_name=NAME)
    with command.make_context(NAME, list(words)) as context:
        command.invoke(context)
    return 0


def _usage(refused: typer.TyperException, words: list[str]) -> int:
    """Words that make no sense as a command."""
    context = getattr(refused, "ctx", None)
    if context and type(refused).__name__ == "NoArgsIsHelpError":  # a class that typer keeps to itself
        render.say(context.get_help())
        return 0
    sentence = refused.format_message()
    command = context.command_path if context else NAME
    render.error(BadInput(sentence, code="usage", hint=f"`{command} --help` shows how."), with_json="--json" in words)
    return BadInput.exit_status


def _show_trace() -> None:
    if os.environ.get("BRANCHLINE_DEBUG"):
        traceback.print_exc()
