"""Looks at a repository and drafts its manifest: from a Procfile, a Dockerfile, a Compose file, Django or Node."""

from __future__ import annotations

import posixpath
import re

from branchline.domain.errors import BadInput
from branchline.domain.names import slug
from branchline.onboarding import compose as compose_file
from branchline.onboarding import dockerfile as dockerfile_file
from branchline.onboarding import images, node, procfile, python, surroundings
from branchline.onboarding.application import Application
from branchline.onboarding.compose import Compose
from branchline.onboarding.draft import Draft
from branchline.onboarding.repository import Repository
from branchline.onboarding.services import draft_services
from branchline.onboarding.starters import ignore_file

_OTHER_LANGUAGES = {
    "go.mod": "Go",
    "Gemfile": "Ruby",
    "composer.json": "PHP",
    "pom.xml": "Java",
    "build.gradle": "Java",
    "Cargo.toml": "Rust",
    "mix.exs": "Elixir",
    "package.json": "JavaScript",
    "requirements.txt": "Python",
    "pyproject.toml": "Python",
}


def look(repository: Repository) -> Draft:
    """Draft the manifest of a repository.

    Raises BadInput: `nothing_recognised` where there is nothing to deploy, `no_dockerfile` where there is something
    but no Dockerfile, and none that we could begin with.
    """
    draft = Draft(_project_name(repository.name))
    compose = compose_file.find(repository)
    if compose and compose.fault:
        draft.advise(f"{compose.file} could not be read and was left out: {compose.fault}.")
    _choose_context(repository, draft, compose)
    inner = repository.within(draft.context)
    application = python.find(inner) or node.find(inner)
    processes = procfile.find(repository) or procfile.find(inner)
    if application:
        draft.because(application.evidence, application.a_kind)
    stages = _dockerfile(inner, draft, application, repository, processes)
    images.choose_stages(draft, stages)
    draft_services(draft, images.running_stage(draft, stages), application, processes, compose)
    surroundings.draft_release(draft, application)
    surroundings.draft_database(draft, application, compose)
    surroundings.draft_tests(draft, application, stages)
    surroundings.name_what_is_left_out(draft, compose)
    _environments(repository, draft)
    for sentence in application.advice if application else []:
        draft.advise(sentence.replace("PROJECT", draft.project))
    return draft


def _project_name(folder: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")
    return slug(plain[:32].strip("-") or folder or "project")


def _choose_context(repository: Repository, draft: Draft, compose: Compose | None) -> None:
    """Where the image is built: as the Compose file says, at the top, or in the one folder that has something."""
    built = [service for service in compose.services if service.context is not None] if compose else []
    main = next((service for service in built if service.published), built[0] if built else None)
    if compose and main and main.context is not None and _inside(main.context):
        draft.context = main.context
        draft.dockerfile = main.dockerfile or "Dockerfile"
        draft.target = main.target
        draft.because(f"{compose.file}, service {main.name}", f"the image is built from {_where(draft)}")
        return
    if _is_something(repository):
        return
    inner = [folder for folder in repository.folders() if _is_something(repository.within(folder))]
    if len(inner) == 1:
        draft.context = inner[0]
        draft.because(f"{inner[0]}/", "the one folder with an application")
    elif len(inner) > 1:
        best = next((folder for folder in inner if repository.has(f"{folder}/Dockerfile")), inner[0])
        draft.context = best
        others = ", ".join(folder for folder in inner if folder != best)
        draft.because(f"{best}/", "an application")
        draft.advise(f"There is more than one application here; {others} was left out. A project builds one image.")


def _inside(path: str) -> bool:
    return not path.startswith(("/", "~")) and "://" not in path and ".." not in path.split("/") and "$" not in path


def _is_something(repository: Repository) -> bool:
    return repository.first("Dockerfile", "manage.py", "package.json", "Procfile", "requirements.txt") is not None


def _where(draft: Draft) -> str:
    return posixpath.normpath(posixpath.join(draft.context, draft.dockerfile))


def _dockerfile(
    inner: Repository,
    draft: Draft,
    application: Application | None,
    repository: Repository,
    processes: dict[str, str],
) -> list[dockerfile_file.Stage]:
    """The stages of the Dockerfile that is there, or of one that will be written."""
    if not inner.has(draft.dockerfile):
        other = inner.first("docker/Dockerfile", "deploy/Dockerfile", "Dockerfile.prod", "Dockerfile.production")
        draft.dockerfile = other or draft.dockerfile
    text = inner.text(draft.dockerfile)
    if text is not None:
        found = dockerfile_file.stages(text)
        if found:
            names = [stage.name for stage in found if stage.name]
            named = f" with the stages {', '.join(names)}" if len(names) > 1 else ""
            draft.because(_where(draft) + named, "the image is built from it")
            return found
        draft.advise(f"{_where(draft)} has no FROM: nothing can be built from it yet.")
        return []
    if application is None or application.starter is None:
        raise _nothing_to_build(repository, inner, processes)
    draft.dockerfile, draft.target = "Dockerfile", None
    draft.files[posixpath.normpath(posixpath.join(draft.context, "Dockerfile"))] = application.starter
    ignore = posixpath.normpath(posixpath.join(draft.context, ".dockerignore"))
    if not repository.has(ignore):
        draft.files[ignore] = ignore_file(application.ignore)
    draft.because("no Dockerfile", f"one for {application.a_kind} is written")
    return dockerfile_file.stages(application.starter)


def _nothing_to_build(repository: Repository, inner: Repository, processes: dict[str, str]) -> BadInput:
    language = next((name for file, name in _OTHER_LANGUAGES.items() if inner.has(file)), "")
    if not language and not processes:
        return BadInput(
            f"Nothing to deploy was recognised in {repository.folder}.",
            code="nothing_recognised",
            hint="Run it at the top of a repository with a Dockerfile, or with a Django or Node application.",
        )
    what = f"an application in {language}" if language else "a Procfile"
    return BadInput(
        f"There is {what} in {repository.folder}, but no Dockerfile to build it from.",
        code="no_dockerfile",
        hint="Write a Dockerfile whose CMD starts the application, and run `branchline init` again. "
        "For Django, FastAPI, Flask and Node with a start script it writes one itself.",
    )


def _environments(repository: Repository, draft: Draft) -> None:
    trunk = next((name for name in ("main", "master") if name in repository.branches), None)
    if "develop" in repository.branches or trunk or repository.current is None:
        draft.staging = trunk
    else:
        draft.develop = repository.current
    if trunk:
        draft.because(f"the branch {trunk}", "it goes to staging")
    if draft.develop in repository.branches:
        draft.because(f"the branch {draft.develop}", "it goes to develop")
