"""Probes over the network: one look at an instance, on a fresh connection, within its time."""

from __future__ import annotations

import errno
import http.client
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from branchline.domain.manifest import HealthCheck
from branchline.ports import Containers, Instance

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HOST_HEADER = "localhost"
"""What probes call the service. Frameworks that check the Host header take this by default, and never an address."""

_AGENT = "branchline-probe"


class NetworkProbes:
    """Probes by HTTP and TCP from here, and by command in the container.

    `hostname` may say another Host header for an instance, for services that know themselves by one name only.
    """

    def __init__(self, containers: Containers, hostname: Callable[[Instance], str] | None = None) -> None:
        self._containers = containers
        self._hostname = hostname or (lambda _: HOST_HEADER)

    def probe(self, instance: Instance, check: HealthCheck) -> tuple[bool, str]:
        """Whether the instance is healthy right now, and a few words of what was seen.

        HTTP 2xx and 3xx count as healthy; redirects are not followed. The whole probe takes no longer than
        `check.probe_timeout` seconds, however slowly the service answers.
        """
        if check.command is not None:
            return self._containers.probe_command(instance, check.command, check.probe_timeout)
        if instance.port is None:
            return False, "the service has no port"
        try:
            with _TimedSocket(check.probe_timeout) as connection:
                connection.connect((instance.address, instance.port))
                if check.path is None:
                    return True, "accepts connections"
                host = self._hostname(instance)
                return _judge(_get(connection, check.path, host), host)
        except (OSError, http.client.HTTPException) as error:
            return False, _words(error, check.probe_timeout)


class _TimedSocket(socket.socket):
    """A connection that is over after a while, however little at a time still comes: every wait gets what is left."""

    def __init__(self, seconds: float) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._end = time.monotonic() + seconds
        self.settimeout(seconds)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Read, within the time that is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


def _get(connection: socket.socket, path: str, host: str) -> int:
    """The status that a GET is answered with. The body is not read: the head says it all."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode())
    with http.client.HTTPResponse(connection, method="GET") as response:
        response.begin()
        return response.status


def _judge(status: int, host: str) -> tuple[bool, str]:
    if status == 400:
        # The usual reason by far is a list of allowed hosts, and that is hard to guess from outside.
        return False, f"HTTP 400; the probe says Host: {host}, which the service may have to allow"
    return 200 <= status < 400, f"HTTP {status}"


def _words(error: OSError | http.client.HTTPException, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, ConnectionResetError):  # by its other name RemoteDisconnected
        return "closed the connection without an answer"
    if isinstance(error, http.client.HTTPException):
        return "an answer that is not HTTP"
    if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return "nothing at its address"
    return (error.strerror or str(error)).lower()
