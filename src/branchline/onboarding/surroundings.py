"""Drafts what belongs to the services: the release command, the database, the tests; and names what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from branchline.domain.names import ENVIRONMENT_KEY
from branchline.onboarding.application import Application
from branchline.onboarding.compose import Compose
from branchline.onboarding.dockerfile import Stage
from branchline.onboarding.draft import Draft, TestDraft
from branchline.onboarding.images import running_stage, test_stage
from branchline.onboarding.services import own_services
from branchline.onboarding.shell import settled, shown

_URL = re.compile(r"(?:DATABASE|POSTGRES|POSTGRESQL|PG|DB)_?(?:URL|URI|DSN)$")
_TOOLS = re.compile(r"adminer|pgadmin|mailhog|mailpit|maildev|selenium|jaeger|prometheus|grafana|traefik|nginx|caddy")
_SETTINGS = "DJANGO_SETTINGS_MODULE"


def draft_release(draft: Draft, application: Application | None) -> None:
    """The release command, where the Procfile or a command did not give one."""
    if draft.release is None and application and application.release:
        draft.release = application.release
        draft.because(application.kind, f"the release command is `{shown(application.release)}`")


def draft_database(draft: Draft, application: Application | None, compose: Compose | None) -> None:
    """A database, where the dependencies or the Compose file speak of PostgreSQL."""
    server = next((service for service in compose.services if service.is_postgres), None) if compose else None
    variables = {key: value for service in own_services(draft, compose) for key, value in service.variables.items()}
    valid = [(key, value) for key, value in variables.items() if re.match(ENVIRONMENT_KEY, key)]
    urls = [key for key, value in valid if _URL.search(key) or value.startswith(("postgres:", "postgresql:"))]
    if server and compose:
        draft.because(
            f"{compose.file}, service {server.name}", "every environment gets a PostgreSQL database of its own"
        )
    elif application and application.postgres:
        draft.because(
            f"{application.postgres} in the dependencies", "every environment gets a PostgreSQL database of its own"
        )
    elif not urls:
        return
    draft.database_variable = urls[0] if urls else "DATABASE_URL"
    if parts := sorted(key for key in variables if re.search(r"(?:DB|POSTGRES|PG|DATABASE)_?HOST$", key)):
        draft.advise(
            f"The Compose file gives the database in parts ({parts[0]}, …). Branchline gives one address, in "
            f"{draft.database_variable}: let the application read that."
        )


def draft_tests(draft: Draft, application: Application | None, stages: Sequence[Stage]) -> None:
    """The tests, where the image can run them."""
    stage = test_stage(stages)
    command = application.test if application else None
    if stage:
        own = next(one.command for one in stages if one.name == stage)
        running = running_stage(draft, stages)
        if own and running and own != running.command and settled(own, None).usable:
            command = settled(own, None).words
        if command:
            draft.test = TestDraft(command, stage)
            draft.because(f"the stage {stage}", f"the tests are `{shown(command)}`")
    elif command and application and not application.test_tools:
        draft.test = TestDraft(command)
        draft.because(application.kind, f"the tests are `{shown(command)}`")
    elif command:
        draft.advise(
            f"The tests (`{shown(command)}`) need more than {draft.dockerfile} installs: add a stage `test` to it, and "
            f"`test: {{target: test, command: {shown(command)}}}` to the manifest."
        )


def name_what_is_left_out(draft: Draft, compose: Compose | None) -> None:
    """Services and variables of the Compose file that the manifest does not hold."""
    if compose is None:
        return
    own = own_services(draft, compose)
    variables: dict[str, str] = {}
    for service in own:
        variables |= service.variables
        _settings_module(draft, service.variables.get(_SETTINGS, ""))
    for service in compose.services:
        if service in own or service.is_postgres:
            continue
        title = f"{service.name} ({service.image or service.context})"
        if service.context is not None:
            draft.advise(
                f"{title} of {compose.file} has an image of its own and was left out: a project builds one image."
            )
        elif not _TOOLS.search(service.image or service.name):
            pointing = [key for key, value in variables.items() if f"{service.name}:" in value or value == service.name]
            key = pointing[0] if pointing else f"{service.name.upper().replace('-', '_')}_URL"
            draft.advise(
                f"{title} of {compose.file} is not something that Branchline runs: let it run elsewhere, and set its "
                f"address by `branchline config set {draft.project} develop {key}`."
            )
    known = {draft.database_variable, "PORT", _SETTINGS}
    rest = sorted(key for key in variables if key not in known and not key.startswith(("POSTGRES_", "PG")))
    if rest:
        draft.advise(
            f"{compose.file} sets {', '.join(rest[:12])}{', …' if len(rest) > 12 else ''}. What of it environments "
            "need belongs into the config (`branchline config set`), or under `environment` where it is no secret."
        )


def _settings_module(draft: Draft, module: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", module) or re.search(r"dev|local|test", module):
        return
    for service in draft.services:
        service.variables.setdefault(_SETTINGS, module)
