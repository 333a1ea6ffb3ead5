"""`env`: the environments of a project and their addresses."""

from __future__ import annotations

import os
import sys

import typer

from branchline.cli.arguments import EnvironmentName, Json, Project
from branchline.cli.client import connect, path
from branchline.cli.lazily import wire
from branchline.cli.render import as_json, facts, is_terminal, say, table
from branchline.domain.environment import short
from branchline.domain.errors import NotFound

app = typer.Typer()
env = typer.Typer(help="Show and open the environments of a project.", no_args_is_help=True)
app.add_typer(env, name="env")


@env.command("list")
def list_(project: Project, json: Json = False) -> None:
    """List a project's environments."""
    with connect() as client:
        found = client.get_list(path("projects", project, "environments"), wire.EnvironmentView)
    if json:
        as_json(found)
        return
    if not found:
        say(f"{project} has no environment yet: the first deployment makes one.")
        return
    table(
        ("environment", "tier", "live", "commit", "running", "queued", "url", "trouble"),
        [
            (
                environment.name,
                environment.tier,
                str(environment.live.id) if environment.live else "",
                environment.live.commit[:8] if environment.live else "",
                str(environment.running.id) if environment.running else "",
                str(environment.queued or ""),
                environment.url or "",
                environment.trouble,
            )
            for environment in found
        ],
    )


@env.command()
def show(project: Project, environment: EnvironmentName, json: Json = False) -> None:
    """Show what an environment runs."""
    with connect() as client:
        found = client.get(path("projects", project, "environments", environment), wire.EnvironmentView)
    if json:
        as_json(found)
        return
    live, running = found.live, found.running
    facts(
        [
            ("environment", f"{found.name} of {found.project}"),
            ("tier", found.tier),
            ("url", found.url),
            ("live", f"deployment {live.id}: {short(live.ref)} at {live.commit[:8]}" if live else "nothing yet"),
            ("subject", live.subject if live else None),
            ("running", f"deployment {running.id}: {short(running.ref)} at {running.commit[:8]}" if running else None),
            ("queued", str(found.queued) if found.queued else None),
            ("config", _config(found)),
            ("trouble", found.trouble or None),
        ]
    )


def _config(found: wire.EnvironmentView) -> str | None:
    """Whether what is live has the newest config, in a line."""
    status = found.config
    if status is None:
        return None
    if status.trouble:
        return f"unknown: {status.trouble}"
    apply = f"`branchline config apply {found.project} {found.name}`"
    if gone := [f"version {one.live} of {one.layer}" for one in status.layers if one.gone]:
        are = "is" if len(gone) == 1 else "are"
        return f"{', '.join(gone)} {are} gone: what is live cannot be mended or repeated; {apply} deploys anew"
    if not status.behind:
        return "up to date"
    behind = ", ".join(f"{one.layer} {one.live} of {one.newest}" for one in status.layers if one.live != one.newest)
    keys = f" ({', '.join(status.keys)})" if status.keys else ""
    return f"behind: {behind}{keys}; {apply} deploys it"


@env.command("open")
def open_(project: Project, environment: EnvironmentName, json: Json = False) -> None:
    """Print an environment's address and open it in the browser."""
    with connect() as client:
        found = client.get(path("projects", project, "environments", environment), wire.EnvironmentView)
    if json:
        as_json(found)
        return
    if not found.url:
        raise NotFound(
            f"{found.name} of {found.project} has no address.",
            code="no_address",
            hint="It gets one when a release with routes is live.",
        )
    say(found.url)
    if _has_browser():
        import webbrowser  # noqa: PLC0415 rarely needed

        webbrowser.open(found.url)


def _has_browser() -> bool:
    """Whether a graphical browser can come up: one that takes over the terminal would be no help."""
    screen = sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return screen and is_terminal(sys.stdout)
