"""The OpenAPI description: ours in words, and with problems instead of the framework's own errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from branchline import __version__
from branchline.server.problems import MEDIA_TYPE
from branchline.wire import LogEvent, Problem

DESCRIPTION = """\
Every branch its own environment, production only by a tag, every move in the register.

Send a token as `Authorization: Bearer …`. Every error is a problem (RFC 9457): `code` is stable, `title` says what \
happened, `hint` says what to do. Times are UTC in ISO 8601. Lists are newest first where nothing else is said.
"""

TAGS = [
    {"name": "projects", "description": "Repositories with a manifest."},
    {"name": "environments", "description": "Where releases run: one for each branch, staging, production."},
    {"name": "deployments", "description": "One attempt each to put a release into an environment."},
    {"name": "config", "description": "Settings of an environment; every value is treated as a secret."},
    {"name": "logins", "description": "How people log in: providers, devices, and the browsers in which they are."},
    {"name": "members", "description": "People and groups, and their roles in projects and everywhere."},
    {"name": "tokens", "description": "Tokens of people and of machines. A token is shown once, when it is made."},
    {"name": "audit", "description": "The register: who did what, and what came of it."},
]

_ERRORS = {
    "400": "The request cannot be read.",
    "401": "Nobody knows who asks.",
    "403": "The actor may not do this.",
    "404": "What was named does not exist.",
    "408": "The request did not arrive in time.",
    "409": "It clashes with what is there.",
    "413": "The body is too large.",
    "414": "The address is too long.",
    "422": "The request makes no sense; nothing was changed.",
    "429": "There were too many attempts to log in; `Retry-After` says in how many seconds the next one counts.",
    "431": "The headers are too large, or too many.",
    "503": "The platform or a server beneath it failed; try again.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description, written at the first request for it."""
    if app.openapi_schema is None:
        app.openapi_schema = _describe(app)
    return app.openapi_schema


def _describe(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title="Branchline", version=__version__, description=DESCRIPTION, routes=app.routes, tags=TAGS)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for framework_own in ("HTTPValidationError", "ValidationError"):
        schemas.pop(framework_own, None)
    for model in (Problem, LogEvent):
        own = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(own.pop("$defs", {}))
        schemas[model.__name__] = own
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {
        f"Problem{status}": {"description": meaning, "content": problem} for status, meaning in _ERRORS.items()
    }
    references = {status: {"$ref": f"#/components/responses/Problem{status}"} for status in _ERRORS}
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"] = {
                status: answer for status, answer in operation["responses"].items() if status.startswith("2")
            } | references
    return schema
