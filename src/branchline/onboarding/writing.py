"""Writes a draft as a manifest, with a word on each part for those who have never seen one."""

from __future__ import annotations

import json
import re

from branchline.onboarding.draft import Draft, ServiceDraft
from branchline.onboarding.shell import Words, shown

_PLAIN = re.compile(r"^[A-Za-z/_][A-Za-z0-9 ./_:=@+%,$-]*$")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_WORDS_OF_YAML = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})


def manifest(draft: Draft) -> str:
    """The text of `branchline.yaml`."""
    parts = [
        "# What Branchline builds, tests and runs, and which branch goes where.\n"
        "# Every key is explained by `branchline schema`; `branchline project check` finds mistakes.\n"
        f"project: {draft.project}",
        _build(draft),
        _test(draft),
        _release(draft),
        "services:\n" + "\n".join(_service(service) for service in draft.services),
        _databases(draft),
        _environments(draft),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _build(draft: Draft) -> str:
    lines = ["# The image, built once for each commit; all services run it."]
    lines.append("build:")
    if draft.context != ".":
        lines.append(f"  context: {scalar(draft.context)}  # folder that is sent to the build")
    lines.append(f"  dockerfile: {scalar(draft.dockerfile)}")
    if draft.target:
        lines.append(f"  target: {scalar(draft.target)}  # the stage that runs in environments")
    return "\n".join(lines)


def _test(draft: Draft) -> str:
    if draft.test is None:
        return ""
    lines = ["# Run inside the image before anything goes live; a status other than 0 ends the deployment.", "test:"]
    if draft.test.target:
        lines.append(f"  target: {scalar(draft.test.target)}  # the stage that holds the tests' tools")
    lines.append(f"  command: {command(draft.test.command)}")
    if draft.database_variable:
        lines.append("  databases: [default]  # an empty one, made for each run")
    return "\n".join(lines)


def _release(draft: Draft) -> str:
    if draft.release is None:
        return ""
    return (
        "# Run once for each deployment, in the new image, while the old release still serves.\n"
        f"release: {command(draft.release)}"
    )


def _service(service: ServiceDraft) -> str:
    lines = [f"  {service.name}:", f"    command: {command(service.command)}"]
    if service.port:
        lines.append(f"    port: {service.port}  # where it listens; it finds the number in PORT, too")
    if service.routes:
        lines.append(f"    routes: [{', '.join(service.routes)}]  # requests to these paths go here")
    if service.port and service.health_path:
        lines.append("    healthcheck:  # no traffic before this answers with 2xx or 3xx")
        lines.append(f"      path: {scalar(service.health_path)}")
    elif service.port:
        lines.append("    healthcheck:")
        lines.append("      tcp: true  # it accepts connections; better is a page that answers: `path: /healthz`")
    if service.variables:
        lines.append("    environment:")
        lines += [f"      {key}: {scalar(value)}" for key, value in service.variables.items()]
    return "\n".join(lines)


def _databases(draft: Draft) -> str:
    if draft.database_variable is None:
        return ""
    return (
        "# Every environment gets a database of its own, and its address in this variable.\n"
        "databases:\n"
        "  default:\n"
        "    engine: postgres\n"
        f"    variable: {draft.database_variable}"
    )


def _environments(draft: Draft) -> str:
    lines = [
        "# Which branch goes where. Production moves by tags only; take its line in when you get there.",
        "environments:",
    ]
    lines.append(f"  develop: {{on: {{branch: {flow(draft.develop)}}}}}")
    if draft.staging:
        lines.append(f"  staging: {{on: {{branch: {flow(draft.staging)}}}}}")
    lines.append('  # production: {on: {tag: "v*"}}')
    return "\n".join(lines)


def command(words: Words) -> str:
    """A command as YAML: one line, or a list where a shell gets a script."""
    if len(words) == 3 and words[:2] == ("sh", "-c"):
        return f"[sh, -c, {_quoted(words[2])}]"
    return scalar(shown(words))


def scalar(text: str) -> str:
    """Text as a YAML scalar, quoted where it could be read as something else."""
    plain = _PLAIN.match(text) and text.lower() not in _WORDS_OF_YAML
    if plain and ": " not in text and not text.endswith((":", " ")) and "  " not in text:
        return text
    return _quoted(text)


def flow(text: str) -> str:
    """The same within braces, where commas mean something."""
    return scalar(text) if "," not in text else _quoted(text)


def _quoted(text: str) -> str:
    """Text in double quotes, where YAML reads what JSON writes; signs that YAML wants escaped are."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
