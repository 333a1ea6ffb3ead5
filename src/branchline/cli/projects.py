"""`init`, `project`, `schema`: bring a repository on board, and look at its manifest."""

from __future__ import annotations

import json as json_module
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from branchline.cli import checkout
from branchline.cli.arguments import Json, Project
from branchline.cli.client import connect, path
from branchline.cli.lazily import wire
from branchline.cli.render import Style, as_json, counted, facts, note, paint, printable, say, sign, table
from branchline.domain.errors import BadInput, Conflict, PlatformBroke

app = typer.Typer()
project = typer.Typer(help="Add, list and show projects; check a manifest.", no_args_is_help=True)
app.add_typer(project, name="project")

FILE_NAME = "branchline.yaml"


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The repository.", show_default="here")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a manifest that is there.")] = False,
) -> None:
    """Look at a repository and write a branchline.yaml that works."""
    from branchline.onboarding.detection import look  # noqa: PLC0415 only here
    from branchline.onboarding.repository import Repository  # noqa: PLC0415
    from branchline.onboarding.writing import manifest  # noqa: PLC0415

    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder.", code="no_folder", hint="Give the folder of a repository.")
    target = folder / FILE_NAME
    there = os.path.lexists(target)
    if there and not force:
        raise Conflict(
            f"There is a {target} already.",
            code="manifest_exists",
            hint="`branchline project check` looks at it; `branchline init --force` writes it anew.",
        )
    branches = frozenset(checkout.branches(folder))
    draft = look(Repository(folder, branches, checkout.current_branch(folder)))
    arrow = sign("→", "->", sys.stdout)
    for found, hence in draft.found:
        say(f"  {paint(f'{found} {arrow}', Style.DIM, sys.stdout)} {hence}")
    written = {FILE_NAME: manifest(draft), **draft.files}
    for name, text in written.items():
        _write(folder / name, text, replace=there and name == FILE_NAME)
    say(f"\nWrote {', '.join(written)}.")
    for sentence in draft.advice:
        say(f"{paint('  Note:', Style.WARNING, sys.stdout)} {printable(sentence)}")
    top = checkout.top(folder)
    if top and top != folder.resolve():
        where = f"This folder is not the top of its git repository ({top}), where the platform looks for {FILE_NAME}."
        say(f"{paint('  Note:', Style.WARNING, sys.stdout)} {where}")
    origin = _without_password(checkout.origin(folder)) or "URL"
    say("\nNext:")
    say(f"  git add {' '.join(written)} && git commit -m 'Deploy with Branchline' && git push")
    say(f"  branchline project add {draft.project} --repo {origin}")
    say(f"  branchline deploy {draft.project}")


def _without_password(address: str | None) -> str:
    """A repository's address as it may be shown and given to the platform."""
    return re.sub(r"^(https?://)[^/@]*@", r"\1", address or "")


def _write(file: Path, text: str, *, replace: bool) -> None:
    """Write a file in one move. Without `replace`, one that came to be in the meantime is left alone."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            if replace:
                partial.replace(file)
            else:
                os.link(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError:
        raise Conflict(f"There is a {file} already.", code="file_exists", hint="It was left as it is.") from None
    except OSError as error:
        raise PlatformBroke(
            f"{file} cannot be written: {error.strerror}.",
            code="unwritable",
            hint="Look at the folder's permissions and the space on the disk.",
        ) from None


@project.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The manifest.")] = Path(FILE_NAME),
    json: Json = False,
) -> None:
    """Check a manifest: all mistakes with their lines, and what looks odd."""
    from branchline.manifest_file import ManifestInvalid, parse  # noqa: PLC0415 only here
    from branchline.onboarding.repository import Repository  # noqa: PLC0415
    from branchline.onboarding.review import review  # noqa: PLC0415

    if file.is_dir():
        file /= FILE_NAME
    text = _read(file)
    problems: list[dict[str, Any]] = []
    warnings: list[dict[str, Any]] = []
    try:
        manifest = parse(text)
        warnings = [vars(oddity) for oddity in review(text, manifest, Repository(file.parent))]
    except ManifestInvalid as invalid:
        problems = [vars(problem) for problem in invalid.problems]
    if json:
        as_json({"file": str(file), "valid": not problems, "problems": problems, "warnings": warnings})
    else:
        for entry in [*problems, *warnings]:
            say(_compiler_line(file, entry, warning=not problems))
        say(_verdict(file, problems, warnings))
    if problems:
        raise typer.Exit(1)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not text in UTF-8.", code="bad_manifest", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read: {error.strerror}.",
            code="no_manifest",
            hint="Give the manifest's path; `branchline init` writes one.",
        ) from None


def _compiler_line(file: Path, entry: dict[str, Any], *, warning: bool) -> str:
    place = f"{file}:{entry['line']}:{entry['column']}:"
    kind = paint("warning: ", Style.WARNING, sys.stdout) if warning else ""
    suggestion = f" ({entry['suggestion']})" if entry["suggestion"] else ""
    return f"{paint(place, Style.STRONG, sys.stdout)} {kind}{printable(entry['message'] + suggestion)}"


def _verdict(file: Path, problems: list[dict[str, Any]], warnings: list[dict[str, Any]]) -> str:
    if problems:
        return (
            f"{paint(sign('✗', 'x', sys.stdout), Style.BAD, sys.stdout)} {counted(len(problems), 'problem')} in {file}."
        )
    odd = f", with {counted(len(warnings), 'warning')}" if warnings else ""
    return f"{paint(sign('✓', '+', sys.stdout), Style.GOOD, sys.stdout)} {file} is valid{odd}."


@project.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As the manifest calls it.")],
    repo: Annotated[str, typer.Option(help="Address of the git repository, as the platform reaches it.")],
    json: Json = False,
) -> None:
    """Let the platform know a project."""
    with connect() as client:
        answer = client.send("POST", "projects", {"name": name, "repository": repo})
        added = client.read(answer, wire.ProjectView)
    if json:
        as_json(added)
    else:
        say(f"Added {added.name}, from {added.repository}.")
        note(f"To deploy it: branchline deploy {added.name}")


@project.command("list")
def list_(json: Json = False) -> None:
    """List the projects."""
    with connect() as client:
        found = client.get_list("projects", wire.ProjectView)
    if json:
        as_json(found)
    elif not found:
        say("There are no projects yet: `branchline project add NAME --repo URL`")
    else:
        rows = [(one.name, one.repository, ", ".join(env.name for env in one.environments)) for one in found]
        table(("project", "repository", "environments"), rows)


@project.command()
def show(name: Project, json: Json = False) -> None:
    """Show a project and its environments."""
    with connect() as client:
        found = client.get(path("projects", name), wire.ProjectView)
    if json:
        as_json(found)
        return
    facts([("project", found.name), ("repository", found.repository)])
    if found.environments:
        say()
        rows = [
            (env.name, env.tier, f"deployment {env.live.id}" if env.live else "", env.url or "")
            for env in found.environments
        ]
        table(("environment", "tier", "live", "url"), rows)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the manifest, for editors."""
    from branchline.manifest_file import json_schema  # noqa: PLC0415 only here

    say(json_module.dumps(json_schema(), indent=2, ensure_ascii=False))
