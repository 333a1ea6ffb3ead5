"""`deploy`, and `deployments`: ask for deployments, follow, list, read and cancel them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from branchline.cli import checkout
from branchline.cli.arguments import DeploymentNumber, Json, Project
from branchline.cli.client import Client, connect, path
from branchline.cli.lazily import wire
from branchline.cli.render import (
    Style,
    as_json,
    duration,
    is_terminal,
    moment,
    note,
    paint,
    printable,
    say,
    table,
)
from branchline.cli.story import tell
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import short
from branchline.domain.errors import BadInput

app = typer.Typer()
deployments = typer.Typer(help="List, read, follow and cancel deployments.", no_args_is_help=True)
app.add_typer(deployments, name="deployments")

INTERRUPTED = 130
PAGE = 1000
_SOUND = {State.SUCCEEDED: 0, State.BROKEN: 4}


@app.command()
def deploy(
    project: Project,
    ref: Annotated[
        str | None, typer.Option(help="Branch, tag or full ref.", show_default="the branch checked out here")
    ] = None,
    commit: Annotated[
        str | None, typer.Option(help="A commit of that ref.", show_default="where the ref points to now")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the register.")] = "",
    watch: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
    json: Json = False,
) -> None:
    """Deploy a ref of a project.

    The manifest says into which environment it goes.
    """
    here = Path()
    followed = ref or checkout.current_branch(here)
    if followed is None:
        where = "No branch is checked out here" if checkout.is_repository(here) else "This folder is no git repository"
        raise BadInput(
            f"{where}, so the ref must be given.", code="ref_missing", hint=f"`branchline deploy {project} --ref main`"
        )
    body = {"ref": followed, "trigger": Trigger.CLI.value, "reason": reason}
    with connect() as client:
        try:
            answer = client.send(
                "POST", path("projects", project, "deployments"), body | ({"commit": commit} if commit else {})
            )
        except KeyboardInterrupt:
            note(f"\nWhether it was asked for shows `branchline deployments list {project}`.")
            raise
        asked = client.read(answer, wire.DeploymentView)
        if ref is None and commit is None:
            _warn_of_what_is_not_pushed(asked, checkout.head(here))
        if watch:
            raise typer.Exit(follow_to_end(client, asked, json=json))
    if json:
        as_json(asked)
    else:
        say(f"Deployment {asked.id} of {asked.project} to {asked.environment} is {asked.state}.")
        say(f"Follow it: branchline deployments logs {asked.id} --follow")


def _warn_of_what_is_not_pushed(asked: wire.DeploymentView, here: str | None) -> None:
    if here and here != asked.commit:
        note(
            paint("Note:", Style.WARNING, sys.stderr) + f" {here[:8]} is checked out here, but the repository's "
            f"{short(asked.ref)} is at {asked.commit[:8]}. Did you push?"
        )


def follow_to_end(client: Client, deployment: wire.DeploymentView, *, json: bool) -> int:
    """Show a deployment until it ends; return the exit status that says how."""
    from branchline.cli.progress import Progress  # noqa: PLC0415 after the request has left
    from branchline.cli.watch import watch  # noqa: PLC0415

    if is_terminal(sys.stdout) and not json and not os.environ.get("CI"):
        from branchline.cli.live import LiveProgress  # noqa: PLC0415

        progress: Progress = LiveProgress()
    else:
        progress = Progress(sys.stderr if json else sys.stdout)
    try:
        ended = watch(client, deployment, progress)
    except KeyboardInterrupt:
        note(f"\nDeployment {deployment.id} goes on without you.")
        note(f"  Follow it: branchline deployments logs {deployment.id} --follow")
        note(f"  Stop it:   branchline deployments cancel {deployment.id}")
        return INTERRUPTED
    if json:
        as_json(ended)
    return _SOUND.get(ended.state, 1)


@deployments.command("list")
def list_(
    project: Annotated[str | None, typer.Argument(metavar="PROJECT", help="Only those of this project.")] = None,
    env: Annotated[str | None, typer.Option("--env", help="Only those into this environment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 20,
    before: Annotated[int | None, typer.Option(min=1, help="Only those with a lower number.")] = None,
    json: Json = False,
) -> None:
    """List deployments, newest first."""
    with connect() as client:
        page = client.get("deployments", wire.Page, project=project, environment=env, before=before, limit=limit)
    if json:
        as_json(page)
        return
    if not page.items:
        say("There are no deployments.")
        return
    columns = ("id", "project", "environment", "state", "ref", "commit", "asked for", "took", "by")
    table(columns, [_row(deployment) for deployment in page.items])
    if page.next is not None:
        note(paint(f"There are older ones: --before {page.next}", Style.DIM, sys.stderr))


def _row(deployment: wire.DeploymentView) -> tuple[str, ...]:
    return (
        str(deployment.id),
        deployment.project,
        deployment.environment,
        deployment.state + (" (live)" if deployment.live else ""),
        short(deployment.ref),
        deployment.commit[:8],
        moment(deployment.requested_at),
        _took(deployment),
        deployment.actor,
    )


def _took(deployment: wire.DeploymentView) -> str:
    if not deployment.finished_at:
        return ""
    return duration((deployment.finished_at - deployment.requested_at).total_seconds())


@deployments.command()
def show(id_: DeploymentNumber, json: Json = False) -> None:
    """Show a deployment's whole story.

    Who asked for it and why, what changed since the live release (commits, config keys, migrations), each stage, and
    what came of it.
    """
    with connect() as client:
        deployment = client.get(path("deployments", id_), wire.DeploymentView)
    if json:
        as_json(deployment)
        return
    tell(deployment)


@deployments.command()
def logs(
    id_: DeploymentNumber,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the deployment ends.")] = False,
    json: Json = False,
) -> None:
    """Print a deployment's log.

    With --follow, watch the deployment to its end as `deploy` does.
    """
    with connect() as client:
        if follow:
            raise typer.Exit(
                follow_to_end(client, client.get(path("deployments", id_), wire.DeploymentView), json=json)
            )
        lines: list[wire.LogLine] = []
        after = 0
        while part := client.get_list(f"{path('deployments', id_)}/log", wire.LogLine, after=after, limit=PAGE):
            after = part[-1].seq
            if json:
                lines += part
                continue
            for line in part:
                when = paint(f"{line.at.astimezone():%H:%M:%S} {line.stage.ljust(8)}", Style.DIM, sys.stdout)
                say(f"{when}  {printable(line.text)}")
    if json:
        as_json(lines)


@deployments.command()
def cancel(id_: DeploymentNumber, json: Json = False) -> None:
    """Stop a deployment. What was live stays live."""
    with connect() as client:
        answer = client.send("POST", f"{path('deployments', id_)}/cancel")
        deployment = client.read(answer, wire.DeploymentView)
    if json:
        as_json(deployment)
    elif deployment.state.final:
        say(f"Deployment {deployment.id} is {deployment.state}.")
    else:
        say(f"Deployment {deployment.id} was asked to stop; it does so at the next safe point.")
