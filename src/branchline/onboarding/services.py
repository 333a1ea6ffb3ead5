"""Drafts the services: what a Procfile says comes first, then the Dockerfile, the Compose file, the framework."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from branchline.domain.names import slug
from branchline.onboarding.application import Application
from branchline.onboarding.compose import Compose, ComposeService
from branchline.onboarding.dockerfile import Stage
from branchline.onboarding.draft import Draft, ServiceDraft
from branchline.onboarding.shell import Command, Words, is_migration, port_in, settled, shown, understood

PROCFILE_PORT = 8000
"""What `$PORT` becomes where nothing says otherwise."""

_DEVELOPMENT = re.compile(
    r"\brunserver\b|\bnodemon\b|--reload\b|\b(?:npm|yarn|pnpm)(?: run)? (?:dev|watch)\b|\bflask run\b|--debug\b"
)
_UNKNOWN = Command(("sh", "-c", "echo 'Set the command of this service in branchline.yaml.'; exit 1"))
_WEB_NAMES = ("web", "app", "api", "server", "backend", "site", "frontend")


def draft_services(
    draft: Draft,
    image: Stage | None,
    application: Application | None,
    processes: Mapping[str, str],
    compose: Compose | None,
) -> None:
    """Fill in the services. `image` is the stage that runs, `processes` are those of the Procfile."""
    own = own_services(draft, compose)
    web = _web_service(own)
    port = next(
        (number for number in (_first(image), web and web.port, application and application.port) if number), None
    )
    if "release" in processes:
        _release(draft, understood(processes["release"], port or PROCFILE_PORT, apart=False), "Procfile")
    if lasting := {process: line for process, line in processes.items() if process != "release"}:
        _from_procfile(draft, lasting, port or PROCFILE_PORT)
    else:
        _from_image(draft, image, application, web, compose, port)
    main = draft.service("web") or (None if lasting else draft.services[0])
    if main:
        main.health_path = next(
            (path for path in (_path(image), web and web.health_path, application and application.health_path) if path),
            None,
        )
    for service in own:
        if service is not web and draft.service(slug(service.name)) is None:
            _from_compose(draft, service, compose)


def own_services(draft: Draft, compose: Compose | None) -> list[ComposeService]:
    """The services of the Compose file that run our image."""
    listed = compose.services if compose else ()
    built = [service for service in listed if service.context is not None]
    images = {service.image for service in built if service.image and service.context == draft.context}
    return [service for service in listed if service.context == draft.context or service.image in images]


def _web_service(own: Sequence[ComposeService]) -> ComposeService | None:
    """The one that gets requests."""
    with_port = [service for service in own if service.port]
    named = [service for name in _WEB_NAMES for service in with_port if service.name == name]
    fitting = named or with_port or [service for service in own if service.name in _WEB_NAMES]
    return fitting[0] if fitting else None


def _from_procfile(draft: Draft, processes: Mapping[str, str], port: int) -> None:
    for process, line in processes.items():
        command = understood(line, port)
        if process == "web":
            _add(draft, "web", command, port_in(command.words) or port, "Procfile")
        else:
            _add(draft, slug(process), command, None, "Procfile")
    if "web" not in processes:
        draft.advise("The Procfile has no `web`: nothing of this project gets requests.")


def _from_image(
    draft: Draft,
    image: Stage | None,
    application: Application | None,
    web: ComposeService | None,
    compose: Compose | None,
    port: int | None,
) -> None:
    """The service that the image was made for."""
    where = draft.dockerfile if draft.dockerfile not in draft.files else ""
    candidates: list[tuple[Words | None, str]] = [
        (image.command if image else None, where),
        (web.command if web else None, compose.file if compose else ""),
        (application.command if application else None, application.kind if application else ""),
    ]
    commands = [(settled(words, port), source) for words, source in candidates if words]
    chosen = next((found for found in commands if not _DEVELOPMENT.search(shown(found[0].words))), None)
    name = slug(web.name) if web else "web"
    if chosen is None and commands:
        chosen = commands[0]
        draft.advise(f"`{shown(chosen[0].words)}` is for development: let {name} run a server that is made to last.")
    if chosen is None and image and image.entrypoint:
        chosen = settled(image.entrypoint, port), where
        draft.advise(
            f"{where} has an ENTRYPOINT and no CMD. A service's command is put behind the ENTRYPOINT, as in Compose: "
            "turn the ENTRYPOINT into a CMD."
        )
    command, source = chosen or (Command(()), "")
    _add(draft, name, command, port_in(command.words) or port, source)
    if draft.services[-1].port is None:
        draft.advise(f"No port was found, so {name} gets no requests: give it `port` and `routes` if it should.")


def _from_compose(draft: Draft, service: ComposeService, compose: Compose | None) -> None:
    """A further service of the Compose file that runs the same image."""
    source = compose.file if compose else ""
    if service.command is None:
        return
    command = settled(service.command, service.port)
    if is_migration(command.words):
        _release(draft, command, f"{source}, service {service.name}")
    elif _DEVELOPMENT.search(shown(command.words)):
        draft.advise(f"The service {service.name} of {source} is for development and was left out.")
    else:
        _add(draft, slug(service.name), command, None, source)


def _release(draft: Draft, command: Command, source: str) -> None:
    if draft.release is None and command.usable:
        draft.release = command.words
        draft.because(source, f"the release command is `{shown(command.words)}`")


def _add(draft: Draft, name: str, command: Command, port: int | None, source: str) -> None:
    """Add a service; one with a port gets the requests, as long as no other does."""
    if not command.usable:
        draft.advise(f"What {name} runs was not found: fill in its `command`.")
        command, source = _UNKNOWN, ""
    routes = ["/"] if port and not any(service.routes for service in draft.services) else []
    draft.services.append(ServiceDraft(name, command.words, port, routes, variables=dict(command.variables)))
    for words in command.first:
        if draft.release is None:
            draft.release = words
            draft.because(source, f"`{shown(words)}` runs once per deployment, not at each start")
    if source:
        draft.because(source, f"{name} runs `{shown(command.words)}`")


def _first(image: Stage | None) -> int | None:
    return image.ports[0] if image and image.ports else None


def _path(image: Stage | None) -> str | None:
    return image.health_path if image else None
