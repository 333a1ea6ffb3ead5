"""`up`, `stop`, `status` and `doctor`: the platform on this machine, for its operator."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from branchline.cli.arguments import Json
from branchline.cli.credentials import credentials_file
from branchline.cli.render import Style, as_json, counted, facts, moment, note, paint, say, sign, table

if TYPE_CHECKING:
    from branchline.layout import Layout
    from branchline.settings import Settings
    from branchline.stack.inspection import PlatformStatus

app = typer.Typer()

UNWELL = 1
NAME_WIDTH = 20


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
) -> None:
    """Start the platform: the servers, the HTTP server and the runners.

    Without --detach it stays in the foreground, and Ctrl-C stops all of it; environments keep running.
    """
    from branchline.stack import control  # noqa: PLC0415 half a second that other commands do not need

    settings = own_settings()
    if detach:
        _show_addresses(settings, control.up_detached(settings, _tell))
    else:
        control.up(settings, _tell, lambda layout: _show_addresses(settings, layout))


@app.command()
def stop(
    environments: Annotated[
        bool, typer.Option("--environments", help="Stop the containers of environments too; `up` starts them again.")
    ] = False,
) -> None:
    """Stop the platform on this machine. Its data stay."""
    from branchline.stack import control  # noqa: PLC0415

    settings = own_settings()
    if environments:
        control.stop_with_environments(settings, _tell)
        say("The platform and its environments are stopped.")
    else:
        ran = control.stop(settings, _tell)
        say("The platform is stopped." if ran else "The platform was not running.")


@app.command()
def status(json: Json = False) -> None:
    """Show every part of the platform on this machine.

    Ends with 0 when all is well, 1 otherwise, 4 when there is no platform.
    """
    from branchline.stack.inspection import look  # noqa: PLC0415

    seen = look(own_settings())
    if json:
        as_json(_as_dict(seen))
    else:
        _show(seen)
    if not seen.well:
        raise typer.Exit(UNWELL)


@app.command()
def doctor(json: Json = False) -> None:
    """Look for what is wrong with the platform or this machine, and say what to do.

    Ends with 0 when all is well, 1 otherwise, 4 when there is no platform.
    """
    from branchline.stack.doctor import examine  # noqa: PLC0415

    findings = examine(own_settings(), [credentials_file()])
    wrong = [finding for finding in findings if not finding.well]
    if json:
        as_json({"well": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = sign("✓", "ok", sys.stdout) if finding.well else sign("✗", "!!", sys.stdout)
            colour = Style.GOOD if finding.well else Style.BAD
            say(f"{paint(mark, colour, sys.stdout)} {finding.subject.ljust(NAME_WIDTH)} {finding.text}")
            for line in finding.hint.splitlines():
                say(f"  {'':{NAME_WIDTH}} {paint(line, Style.WARNING, sys.stdout)}")
        say()
        say("All is well." if not wrong else f"{counted(len(wrong), 'thing')} to look at.")
    if wrong:
        raise typer.Exit(UNWELL)


def own_settings() -> Settings:
    """The settings of this machine's platform; raises BadInput (`bad_settings`)."""
    from pydantic import ValidationError  # noqa: PLC0415

    from branchline.domain.errors import BadInput  # noqa: PLC0415
    from branchline.settings import Settings  # noqa: PLC0415

    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise BadInput(
            f"The settings are not right: {wrong}.",
            code="bad_settings",
            hint="They come from settings.toml in the home and from variables BRANCHLINE_….",
        ) from None


def _tell(part: str, text: str) -> None:
    say(f"{part.ljust(NAME_WIDTH)} {text}")
    sys.stdout.flush()


def _show_addresses(settings: Settings, layout: Layout) -> None:
    from branchline.stack.control import addresses  # noqa: PLC0415

    say()
    facts(addresses(settings, layout))
    sys.stdout.flush()


def _show(seen: PlatformStatus) -> None:
    table(
        ["part", "state", "pid", "since", "memory", "restarts", "endpoint"],
        [
            [
                part.name,
                part.state,
                str(part.pid or ""),
                moment(part.since),
                f"{part.memory / 1e6:.0f} MB" if part.memory else "",
                str(part.restarts or ""),
                part.endpoint if part.well else part.reason,
            ]
            for part in seen.parts
        ],
    )
    say()
    watched = f"process {seen.supervisor}, since {moment(seen.since)}" if seen.supervisor else "not running"
    facts([("Home", str(seen.layout.home)), ("Instance", seen.layout.instance), ("Supervisor", watched)])
    if not seen.well:
        note("Not everything is well: `branchline doctor` says what to do.")


def _as_dict(seen: PlatformStatus) -> dict[str, Any]:
    return {
        "well": seen.well,
        "home": str(seen.layout.home),
        "instance": seen.layout.instance,
        "supervisor": {"pid": seen.supervisor, "since": seen.since.isoformat() if seen.since else None},
        "parts": [
            asdict(part) | {"since": part.since.isoformat() if part.since else None, "well": part.well}
            for part in seen.parts
        ],
    }
