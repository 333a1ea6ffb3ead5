"""Asking a server over HTTP, by TCP or by a Unix socket, with the standard library: readiness is asked very often."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from branchline.stack.part import NotReady


@dataclass(frozen=True)
class Answer:
    """The status, and the body where it is a JSON object."""

    status: int
    data: Mapping[str, Any]


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("127.0.0.1", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    server: str | Path,
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    limit: float = 2.0,
) -> Answer:
    """GET, or POST where there is a body, from `host:port` or from a Unix socket.

    Raises NotReady where nothing answers within `limit` seconds, never for a status.
    """
    connection = _UnixConnection(server, limit) if isinstance(server, Path) else HTTPConnection(server, timeout=limit)
    try:
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, _object(response.read()))
    except (OSError, HTTPException) as error:
        raise NotReady(f"no answer ({error or type(error).__name__})") from None
    finally:
        connection.close()


def expect_ok(server: str | Path, path: str) -> None:
    """Raise NotReady unless the server answers this path with 200."""
    if (status := ask(server, path).status) != 200:
        raise NotReady(f"it answers with HTTP {status}")


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
