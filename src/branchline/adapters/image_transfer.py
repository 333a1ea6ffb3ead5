"""Images to and from the registry: the engine pushes and pulls, we tell how far it is and what went wrong."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import quote

import requests
from docker import auth

from branchline.adapters.docker_engine import DockerEngine
from branchline.domain.errors import PlatformBroke, TimedOut, Unreachable
from branchline.ports import Interrupt, Log

SILENCE_LIMIT = 300.0
"""Seconds that the engine may say nothing while it moves an image; it repeats failed attempts by itself."""

_REPORT_EVERY = 5.0
_POLL = 0.2
_THERE_ALREADY = {"Layer already exists", "Already exists"}
_MOVED = {"Pushed", "Pull complete"}
_UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|deadline exceeded|timeout|no route to host|network is unreachable"
    r"|connection reset|\bEOF\b|TLS handshake|x509|HTTP response to HTTPS client|server misbehaving"
    r"|received unexpected HTTP status: 5|50[0234] |service unavailable|bad gateway",
    re.IGNORECASE,
)
_TROUBLED = re.compile(r"received unexpected HTTP status: 50[03]", re.IGNORECASE)
_GONE = re.compile(
    r"manifest unknown|manifest for .* not found|name unknown|blob unknown|repository .* not found|not found: manifest",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left", re.IGNORECASE)


def push(engine: DockerEngine, registry: str, repository: str, tag: str, log: Log, stop: Interrupt) -> str:
    """Push the local image `registry/repository:tag`; return its digest (`sha256:…`).

    Raises PlatformBroke (`registry_unreachable`, `registry_refused`, `disk_full`).
    """
    log.write(f"Pushing {repository}:{tag}")
    progress = _Progress(log)
    digest = ""
    for event in _events(engine, registry, f"/images/{_path(registry, repository)}/push", {"tag": tag}, stop):
        progress.take(event)
        digest = (event.get("aux") or {}).get("Digest") or digest
    if not digest:
        raise PlatformBroke(
            f"The registry did not say which digest {repository}:{tag} has.",
            code="registry_refused",
            hint=_hint(registry),
        )
    progress.close("Pushed")
    return digest


def pull(engine: DockerEngine, registry: str, reference: str, log: Log, stop: Interrupt) -> None:
    """Pull `repository@sha256:…`. Raises PlatformBroke (`image_gone` too) as `push` does."""
    log.write(f"Pulling {reference}")
    repository, _, digest = reference.partition("@")
    progress = _Progress(log)
    parameters = {"fromImage": f"{registry}/{repository}", "tag": digest}
    for event in _events(engine, registry, "/images/create", parameters, stop):
        progress.take(event)
    progress.close("Pulled")


class _Progress:
    """Many small steps of many layers as a few lines."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._began = self._reported = time.monotonic()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._outcome: dict[str, str] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        if status in _THERE_ALREADY or status in _MOVED or status.startswith("Mounted from"):
            self._outcome[layer] = status
        elif status in {"Pushing", "Downloading"}:
            detail = event.get("progressDetail") or {}
            if total := detail.get("total"):
                self._sizes[layer] = (min(int(detail.get("current", 0)), int(total)), int(total))
        if time.monotonic() - self._reported > _REPORT_EVERY and self._sizes:
            self._reported = time.monotonic()
            done, total = (sum(size[n] for size in self._sizes.values()) for n in (0, 1))
            self._log.write(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    def close(self, verb: str) -> None:
        moved = sum(1 for status in self._outcome.values() if status in _MOVED)
        there = len(self._outcome) - moved
        seconds = time.monotonic() - self._began
        layers = "layer" if moved == 1 else "layers"
        self._log.write(f"{verb} {moved} {layers} in {seconds:.1f} s; {there} were there already")


def _events(
    engine: DockerEngine, registry: str, path: str, parameters: Mapping[str, str], stop: Interrupt
) -> Iterator[dict[str, Any]]:
    """What the engine says, event by event, until it is done; hangs up when `stop` raises, which ends the transfer.

    A thread of its own reads, since a read cannot be interrupted.
    """
    said: SimpleQueue[dict[str, Any] | BaseException | None] = SimpleQueue()
    hung_up = threading.Event()
    response: list[requests.Response] = []
    client = engine.client
    headers = {"X-Registry-Auth": _credentials(engine, registry)}

    def read() -> None:
        try:
            with client.post(
                engine.url(path), params=dict(parameters), headers=headers, stream=True, timeout=(10, None)
            ) as answer:
                response.append(answer)
                if answer.status_code >= 400:
                    said.put({"error": _message(answer)})
                elif not hung_up.is_set():
                    for line in answer.iter_lines(chunk_size=None):
                        if line.strip():
                            said.put(json.loads(line))
            said.put(None)
        except BaseException as error:  # it is raised where the caller waits
            said.put(error)

    threading.Thread(target=read, name=f"transfer {path}", daemon=True).start()
    limit = time.monotonic() + SILENCE_LIMIT
    try:
        while True:
            stop.check()
            try:
                event = said.get(timeout=_POLL)
            except Empty:
                if time.monotonic() > limit:
                    raise TimedOut(
                        f"The registry {registry} took nothing for {SILENCE_LIMIT:.0f} seconds.",
                        code="registry_unreachable",
                        hint=_hint(registry),
                    ) from None
                continue
            if event is None:
                return
            limit = time.monotonic() + SILENCE_LIMIT
            if isinstance(event, BaseException):
                raise event
            if problem := event.get("error"):
                raise _complaint(registry, str(problem))
            yield event
    finally:
        hung_up.set()
        for answer in response:
            with suppress(ValueError, RuntimeError, OSError):  # it has ended by itself meanwhile
                answer.raw.shutdown()


def _path(registry: str, repository: str) -> str:
    return quote(f"{registry}/{repository}", safe="/:")


def _credentials(engine: DockerEngine, registry: str) -> str:
    """What `docker login` left for the registry, as the engine wants it; read anew, for it may be recent."""
    client = engine.client
    client.reload_config()
    index, _ = auth.resolve_repository_name(f"{registry}/x")
    found = auth.get_config_header(client, index)
    if found is None:
        return base64.urlsafe_b64encode(b"{}").decode()
    return found.decode() if isinstance(found, bytes) else str(found)


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:400]


def _complaint(registry: str, said: str) -> PlatformBroke:
    hint = f"Docker said: {said.strip()[:400]}"
    if _FULL.search(said):
        return PlatformBroke("A disk is full: the image cannot be moved.", code="disk_full", hint=hint)
    if _GONE.search(said):
        return PlatformBroke("The registry does not have this image any more.", code="image_gone", hint=hint)
    if _TROUBLED.search(said):  # it tells its own log what the matter is, and us nothing
        hint = f"Is its disk full? Its own log says why. {hint}"
        return Unreachable(f"The registry {registry} is in trouble.", code="registry_unreachable", hint=hint)
    if _UNREACHABLE.search(said):
        return Unreachable(f"The registry {registry} cannot be reached.", code="registry_unreachable", hint=hint)
    return PlatformBroke(f"The registry {registry} refused the image.", code="registry_refused", hint=hint)


def _hint(registry: str) -> str:
    return f"See whether the engine reaches {registry}: `docker pull {registry}/…`."
