"""The Docker engine: one connection, a time limit on every call, and its errors in our words."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from importlib.util import find_spec
from queue import Empty, Full, Queue
from typing import Any, ParamSpec, TypeVar

import docker.utils
import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException, create_api_error_from_http_exception

from branchline.domain.errors import PlatformBroke, TimedOut, Unreachable
from branchline.ports import Interrupt

CALL_SECONDS = 120.0
"""No call to Docker takes longer on a machine that can still be worked with."""

_HEADER_BYTES = 8
_PIECE_BYTES = 64 * 1024
_PIECES_AHEAD = 32
_POLL_SECONDS = 0.2

P = ParamSpec("P")
R = TypeVar("R")


class DockerEngine:
    """A Docker endpoint, connected on first use: it need not run yet when the platform starts."""

    def __init__(self, docker_host: str | None) -> None:
        self._docker_host = docker_host
        self._client: APIClient | None = None
        self._processors: int | None = None
        self._lock = threading.Lock()

    @property
    def local(self) -> bool:
        """Whether it runs on this machine, as far as its address tells."""
        host = self._docker_host or os.environ.get("DOCKER_HOST") or "unix://"
        return host.startswith("unix://")

    @property
    def client(self) -> APIClient:
        """The connection; safe to share between threads."""
        with self._lock:
            if self._client is None:
                surroundings = dict(os.environ)
                if self._docker_host:
                    surroundings["DOCKER_HOST"] = self._docker_host
                if surroundings.get("DOCKER_HOST", "").startswith("ssh://") and find_spec("paramiko") is None:
                    raise PlatformBroke(
                        "Docker over SSH needs the Python package paramiko, which is not installed.",
                        code="docker_without_ssh",
                        hint="Install it beside branchline, or forward the engine's socket with `ssh -L`.",
                    )
                self._client = APIClient(
                    version="auto",
                    timeout=int(CALL_SECONDS),
                    max_pool_size=64,
                    **docker.utils.kwargs_from_env(environment=surroundings),
                )
            return self._client

    @property
    def processors(self) -> int:
        """Processor cores of the machine that containers run on."""
        if self._processors is None:
            self._processors = int(self.client.info()["NCPU"])
        return self._processors

    def url(self, path: str) -> str:
        """The address of a call that the client has no method for."""
        client = self.client
        return f"{client.base_url}/v{client.api_version}{path}"


class Output:
    """What a container, or a command in one, writes, while it writes it.

    A thread of its own reads from Docker: the caller is never stuck in a read, and a caller who is slow slows the
    writer down instead of filling the memory.
    """

    def __init__(
        self,
        engine: DockerEngine,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self._engine = engine
        self._request = (method, path, params, body)
        self._pieces: Queue[tuple[int, bytes] | BaseException | None] = Queue(_PIECES_AHEAD)
        self._response: requests.Response | None = None
        self._failure: BaseException | None = None
        self._open = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"docker{path}", daemon=True)
        self._thread.start()

    def await_open(self, stop: Interrupt) -> None:
        """Return once Docker has answered, from when on nothing that is written can be missed."""
        limit = time.monotonic() + CALL_SECONDS
        while not self._open.wait(0.05):
            stop.check()
            if time.monotonic() > limit:
                raise TimedOut("Docker gives no output.", code="docker_unreachable", hint=_LOOK_HINT)
        if self._failure is not None:
            raise self._failure

    def pieces(self, quiet: float = _POLL_SECONDS) -> Iterator[tuple[int, bytes] | None]:
        """Pieces as (1 for stdout or 2 for stderr, bytes); None after each `quiet` seconds without any."""
        while True:
            try:
                piece = self._pieces.get(timeout=quiet)
            except Empty:
                yield None
                continue
            if piece is None:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        """Stop reading; does not wait for the thread, which ends by itself."""
        self._closed.set()
        response = self._response
        if response is not None and not response.raw.closed:
            # Closing would wait for the reader, this wakes it up; where it was quicker, nothing is left to do.
            with suppress(ValueError, RuntimeError, OSError):
                response.raw.shutdown()

    def _read(self) -> None:
        try:
            method, path, params, body = self._request
            with self._engine.client.request(
                method, self._engine.url(path), params=params, json=body, stream=True, timeout=(CALL_SECONDS, None)
            ) as response:
                self._response = response
                if response.status_code >= 400:
                    _raise(response)
                self._open.set()
                while not self._closed.is_set() and len(header := response.raw.read(_HEADER_BYTES)) == _HEADER_BYTES:
                    self._hand_over_frame(response, header[0], int.from_bytes(header[4:], "big"))
            self._hand_over(None)
        except BaseException as error:  # every error goes to whoever waits for output
            self._failure = error
            self._open.set()
            self._hand_over(error)

    def _hand_over_frame(self, response: requests.Response, stream: int, left: int) -> None:
        while left and (data := response.raw.read(min(left, _PIECE_BYTES))):
            left -= len(data)
            self._hand_over((stream, data))

    def _hand_over(self, piece: tuple[int, bytes] | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                return self._pieces.put(piece, timeout=_POLL_SECONDS)
            except Full:
                continue
        return None


def _raise(response: requests.Response) -> None:
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        create_api_error_from_http_exception(error)


def in_our_words(method: Callable[P, R]) -> Callable[P, R]:
    """A method whose Docker errors come out as PlatformBroke."""

    @wraps(method)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise broke(error) from error

    return spoken


def broke(error: Exception) -> PlatformBroke:
    """What an error from Docker means for a reader."""
    if isinstance(error, APIError):
        said = explanation(error)
        if "no space left" in said.lower():
            return PlatformBroke(
                "The disk of the Docker engine is full.",
                code="docker_disk_full",
                hint="`docker system df` shows what takes the room, `docker image prune` frees some.",
            )
        return PlatformBroke(f"Docker said: {said}", code="docker_refused", hint=_LOOK_HINT)
    if isinstance(error, requests.Timeout):
        return TimedOut("Docker did not answer in time.", code="docker_unreachable", hint=_LOOK_HINT)
    return Unreachable(f"Docker cannot be reached: {_reason(error)}", code="docker_unreachable", hint=_LOOK_HINT)


def explanation(error: APIError) -> str:
    """What Docker said, without the address of the call, cut to what fits into a sentence."""
    said = error.explanation
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said or error)
    return text.strip()[:400].rstrip(".") + "."


def _reason(error: BaseException) -> str:
    """The innermost cause: the outer ones only say that a connection was aborted."""
    for argument in error.args:
        if isinstance(argument, BaseException):
            return _reason(argument)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    if cause := error.__cause__ or error.__context__:
        return _reason(cause)
    return str(error).strip()[:300].rstrip(".") + "."


_LOOK_HINT = (
    "See whether the engine runs and this user may use it: `docker info`. "
    "Its address comes from BRANCHLINE_DOCKER_HOST, else DOCKER_HOST, else the local socket."
)
