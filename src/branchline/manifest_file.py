"""Reads `branchline.yaml`: text to Manifest, or every problem with its line and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from branchline.domain.errors import BadInput
from branchline.domain.manifest import FILE_NAME, Manifest
from branchline.domain.names import ENVIRONMENT_KEY
from branchline.manifest_yaml import Document, NotYaml, Path, read

SCHEMA_ID = "https://branchline.dev/schemas/manifest.json"

_MOST_TOLD = 200
"""Nobody reads more faults than that, and each costs a search for what was meant."""

_ELSEWHERE = {
    "image": "the image is built from the repository: see `build`",
    "env": "did you mean `environment`?",
    "ports": "write `port`, one number: the proxy reaches containers without published ports",
    "expose": "did you mean `port`?",
    "cmd": "did you mean `command`?",
    "entrypoint": "did you mean `command`?",
    "replicas": "write `deploy: {replicas: …}`",
    "memory": "write `deploy: {resources: {limits: {memory: …}}}`",
    "cpus": "write `deploy: {resources: {limits: {cpus: …}}}`",
    "mem_limit": "write `deploy: {resources: {limits: {memory: …}}}`",
    "volumes": "keep data in a database, or outside: containers are replaced at every deployment",
    "depends_on": "needless: all services start together, and none gets traffic before all are healthy",
    "name": "did you mean `project`?",
    "retries": "write `timeout` and `healthy_after`",
    "start_period": "write `timeout`",
    "branch": "write `on: {branch: …}`",
    "tag": "write `on: {tag: …}`",
}
"""What people write who come from Compose and its relatives."""


@dataclass(frozen=True)
class ManifestProblem:
    """One thing that is wrong. `path` leads to it, as in `services.web.port`."""

    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        tail = f" ({self.suggestion})" if self.suggestion else ""
        return f"{FILE_NAME}:{self.line}:{self.column}: {self.message}{tail}"


class ManifestInvalid(BadInput):
    """The manifest cannot be used; `problems` are all of its faults, from top to bottom."""

    code = "manifest_invalid"

    def __init__(self, problems: list[ManifestProblem]) -> None:
        self.problems = problems
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            f"{problems[0]}{others}", hint="`branchline project check` in the repository shows all problems."
        )

    def __reduce__(self) -> tuple[type[ManifestInvalid], tuple[list[ManifestProblem]]]:
        return type(self), (self.problems,)


def parse(text: str) -> Manifest:
    """Read a manifest; raises ManifestInvalid."""
    try:
        document = read(text)
    except NotYaml as error:
        problem = ManifestProblem(error.place.line, error.place.column, _dotted(error.path), error.message)
        raise ManifestInvalid([problem]) from None
    problems = [_problem(document, path, f"`{path[-1]}` is there twice") for path in document.twice]
    if not isinstance(document.data, dict):
        shown = "the file is empty" if document.data is None else "the file must hold keys with values"
        suggestion = "`branchline init` writes a manifest to begin with"
        raise ManifestInvalid([_problem(document, (), shown, suggestion)])
    limits = document.data.get("timeouts")
    if isinstance(limits, dict) and "checkout" in limits:
        path, why = ("timeouts", "checkout"), "the manifest is read at the end of that stage"
        problems.append(_problem(document, path, f"the time limit of `checkout` cannot be set here: {why}"))
    try:
        manifest = Manifest.model_validate(document.data)
    except ValidationError as error:
        faults = error.errors(include_url=False)[:_MOST_TOLD]
        mistyped = {
            (*fault["loc"][:-1], _nearest(fault["loc"])) for fault in faults if fault["type"] == "extra_forbidden"
        }
        # `servises` is unknown and `services` is missing: one mistake, told once.
        problems += [
            _told(document, fault) for fault in faults if fault["type"] != "missing" or fault["loc"] not in mistyped
        ]
    if problems:
        raise ManifestInvalid(sorted(dict.fromkeys(problems), key=lambda one: (one.line, one.column)))
    return manifest


def json_schema() -> dict[str, Any]:
    """The manifest's JSON Schema (draft 2020-12), for editors; generated from the one definition."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **Manifest.model_json_schema(),
        "title": "Branchline manifest",
    }


def _told(document: Document, fault: Mapping[str, Any]) -> ManifestProblem:
    """One of pydantic's findings, in plain words."""
    kind, value = str(fault["type"]), fault.get("input")
    path: Path = tuple(step for step in fault["loc"] if step != "[key]")
    about_key = "[key]" in fault["loc"]
    if kind == "extra_forbidden":
        return _problem(document, path, f"unknown key `{path[-1]}`", _suggestion(path))
    if kind == "missing":
        within = f" in `{_dotted(path[:-1])}`" if path[:-1] else ""
        return _problem(document, path[:-1], f"`{path[-1]}` is missing{within}")
    what = f"`{_dotted(path)}`: " if path else ""
    if about_key and kind != "literal_error":
        rule = _KEY_RULE if fault.get("ctx", {}).get("pattern") == ENVIRONMENT_KEY else _NAME_RULE
        return _problem(document, path, f"{_shown(path[-1])} is no name; {rule}")
    return _problem(document, path, what + _reason(kind, value, fault.get("ctx") or {}, str(fault["msg"])))


_KEY_RULE = "use letters, digits and '_', as in DATABASE_URL"
_NAME_RULE = "use 1 to 32 of a-z, 0-9 and '-', starting with a letter"

_REASONS = {
    "bool_type": "{value} is neither true nor false",
    "bool_parsing": "{value} is neither true nor false",
    "int_type": "{value} is no whole number",
    "int_parsing": "{value} is no whole number",
    "int_from_float": "{value} is no whole number",
    "float_type": "{value} is no number",
    "float_parsing": "{value} is no number",
    "string_type": "{value} is no text",
    "string_too_long": "this is longer than {max_length} characters",
    "string_too_short": "this must not be empty",
    "dict_type": "{value} must be keys with values",
    "model_type": "{value} must be keys with values",
    "model_attributes_type": "{value} must be keys with values",
    "list_type": "{value} must be a list",
    "too_short": "there must be at least {min_length}",
    "too_long": "there are {actual_length}, and {max_length} is the most",
    "literal_error": "{value} is not {expected}",
    "greater_than": "{value} must be more than {gt}",
    "greater_than_equal": "{value} must be at least {ge}",
    "less_than": "{value} must be less than {lt}",
    "less_than_equal": "{value} must be at most {le}",
}


def _reason(kind: str, value: object, context: Mapping[str, Any], message: str) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} does not have the right form" + _form(str(context.get("pattern", "")))
    if kind in _REASONS:
        return _REASONS[kind].format(value=_shown(value), **context)
    return message[:1].lower() + message[1:]


def _form(pattern: str) -> str:
    if pattern.startswith("^[a-z](?:"):
        return f"; {_NAME_RULE}"
    if pattern.startswith(r"^/"):
        return "; write it like /healthz"
    if pattern.startswith("^[A-Za-z_]"):
        return f"; {_KEY_RULE}"
    return "; write it like shop.example.com" if "{0,61}" in pattern else ""


def _suggestion(path: Path) -> str:
    """What may have been meant by an unknown key."""
    word = str(path[-1])
    known = _keys_at(path[:-1])
    if word in _ELSEWHERE:
        return _ELSEWHERE[word]
    if near := _nearest(path):
        return f"did you mean `{near}`?"
    return f"known here: {', '.join(known)}" if known else ""


def _nearest(path: Path) -> str | None:
    """The known key that an unknown one looks like."""
    return next(iter(difflib.get_close_matches(str(path[-1]), _keys_at(path[:-1]), n=1, cutoff=0.6)), None)


def _keys_at(path: Path) -> list[str]:
    """The keys that the manifest knows at a path."""
    model: Any = Manifest
    for step in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(step))
            model = field.annotation if field else None
        else:
            model = next(iter(_members(model)), None)  # the key of a mapping, or the number in a list
        model = next((one for one in _alternatives(model) if one is not type(None)), None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _members(kind: Any) -> Iterator[Any]:
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        yield arguments[1]
    elif get_origin(kind) is list:
        yield arguments[0]


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)


def _problem(document: Document, path: Path, message: str, suggestion: str = "") -> ManifestProblem:
    place = document.place(path)
    return ManifestProblem(place.line, place.column, _dotted(path), message, suggestion)


def _dotted(path: Path) -> str:
    return ".".join(str(step) for step in path)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
