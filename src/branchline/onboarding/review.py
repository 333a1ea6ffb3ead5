"""Looks at a valid manifest beside its repository: what will surprise, though it is no mistake of form."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from branchline.domain.manifest import Manifest, Service
from branchline.manifest_yaml import Document, Path, read
from branchline.onboarding.dockerfile import Stage, stages
from branchline.onboarding.repository import Repository
from branchline.onboarding.shell import Words, is_shell, port_in

_OPERATORS = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1", "2>", "&>"})
_VARIABLE = re.compile(r"\$(?:\{[A-Za-z_]\w*[^}]*\}|[A-Za-z_]\w*|\()|`")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
_LOOPBACK = re.compile(r"(?:--bind[= ]|-b[= ]?|--host(?:name)?[= ]|--listen[= ]|-H )(?:127\.0\.0\.1|localhost|\[::1\])")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Oddity:
    """Something that is allowed and yet most likely not meant. `path` leads to it."""

    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""


Remark = tuple[Path, str, str]


def review(text: str, manifest: Manifest, repository: Repository) -> list[Oddity]:
    """What to warn of in a manifest that `parse` accepts, from top to bottom."""
    document = read(text)
    found = [
        *_image(manifest, repository),
        *(remark for name, service in manifest.services.items() for remark in _service(name, service)),
        *_commands(manifest),
        *_reach(manifest),
    ]
    warnings = [_placed(document, *remark) for remark in found]
    return sorted(dict.fromkeys(warnings), key=lambda warning: (warning.line, warning.column))


def _placed(document: Document, path: Path, message: str, suggestion: str) -> Oddity:
    place = document.place(path)
    return Oddity(place.line, place.column, ".".join(str(step) for step in path), message, suggestion)


def _image(manifest: Manifest, repository: Repository) -> Iterator[Remark]:
    build = manifest.build
    file = posixpath.normpath(posixpath.join(build.context, build.dockerfile))
    text = repository.text(file)
    if text is None:
        yield ("build", "dockerfile"), f"there is no {file}", "`branchline init` writes one for Django and Node"
        return
    found = stages(text)
    names = [stage.name for stage in found if stage.name]
    known = f"its stages are {', '.join(names)}" if names else "its stages have no names: write `FROM … AS name`"
    for path, target in (
        (("build", "target"), build.target),
        (("test", "target"), manifest.test and manifest.test.target),
    ):
        if target and target.lower() not in {name.lower() for name in names} and not target.isdigit():
            yield path, f"{file} has no stage {target!r}", known
    running = next(
        (stage for stage in found if stage.name and stage.name == build.target), found[-1] if found else None
    )
    if running:
        yield from _against_image(manifest, running, file)


def _against_image(manifest: Manifest, image: Stage, file: str) -> Iterator[Remark]:
    for name, service in manifest.services.items():
        if image.entrypoint and service.command[0] == image.entrypoint[0] and len(image.entrypoint) < 3:
            message = (
                f"{file} has an ENTRYPOINT that stays in front: `{' '.join([*image.entrypoint, *service.command])}`"
            )
            yield ("services", name, "command"), message, "leave out what the ENTRYPOINT says, or make it a CMD"
        listens = port_in(service.command)
        if service.port and listens is None and image.ports and service.port not in image.ports:
            exposed = ", ".join(str(port) for port in image.ports)
            message = f"the service listens on {service.port}, and {file} exposes {exposed}"
            yield ("services", name, "port"), message, "the service finds the port of the manifest in PORT"


def _service(name: str, service: Service) -> Iterator[Remark]:
    here: Path = ("services", name)
    if service.routes and service.healthcheck is None:
        message = f"`{name}` gets requests but has no healthcheck: an open port will do"
        yield here, message, "write `healthcheck: {path: /healthz}`"
    listens = port_in(service.command)
    if service.port and listens and listens != service.port:
        message = f"the command listens on {listens}, and `port` is {service.port}"
        yield (*here, "port"), message, "make them the same"
    if service.port and (program := _on_loopback(service.command)):
        message = f"`{program}` listens on 127.0.0.1 only, where nothing outside of its container reaches it"
        yield (*here, "command"), message, f"let it listen on 0.0.0.0:{service.port}"
    for key, value in service.environment.items():
        if value and _SECRET.search(key):
            message = f"`{key}` looks like a secret, and the manifest is no place for one"
            yield (*here, "environment", key), message, f"use `branchline config set PROJECT ENV {key}`"


def _on_loopback(words: Words) -> str:
    """The program that listens on the container's own loopback, by what it is told or by its default."""
    line = " ".join(words)
    if _LOOPBACK.search(line):
        return words[0]
    told = re.search(r"--bind|-b[ =]|--host|-c[ =]|--config|--uds|--fd|--factory", line)
    if words[0] in {"gunicorn", "uvicorn", "hypercorn"} and not told:
        return words[0]
    return "flask run" if words[:2] == ("flask", "run") and "--host" not in line and "-h" not in words else ""


def _commands(manifest: Manifest) -> Iterator[Remark]:
    every: list[tuple[Path, Words | None]] = [(("release",), manifest.release)]
    if manifest.test:
        every.append((("test", "command"), manifest.test.command))
    for name, service in manifest.services.items():
        every.append((("services", name, "command"), service.command))
        if service.healthcheck:
            every.append((("services", name, "healthcheck", "command"), service.healthcheck.command))
    for path, words in every:
        if words and not is_shell(words) and (odd := _needs_shell(words)):
            yield path, f"no shell runs this: {odd} is passed on as it stands", f"write {_with_shell(words)}"


def _needs_shell(words: Words) -> str:
    """The first word that only a shell would understand."""
    if len(words) > 1 and _ASSIGNMENT.match(words[0]):
        return f"`{words[0]}` is taken for the program, it"
    for word in words:
        if re.search(r"\s", word):
            continue  # it was quoted, so it is meant as it stands
        if word in _OPERATORS or (word.endswith(";") and len(word) > 1):
            return f"`{word}`"
        if found := _VARIABLE.search(word):
            return f"`{word if len(word) <= 40 else found[0]}`"
    return ""


def _with_shell(words: Words) -> str:
    line = " ".join(words)
    single = not any(word in _OPERATORS or word.endswith(";") for word in words) and not _ASSIGNMENT.match(words[0])
    shown = f"{'exec ' if single else ''}{line}"
    return f'`[sh, -c, "{shown if len(shown) <= 80 else "…"}"]`'


def _reach(manifest: Manifest) -> Iterator[Remark]:
    if not any(service.routes for service in manifest.services.values()):
        yield ("services",), "no service has routes: the environments answer no requests", "write `routes: [/]`"
