"""Listening, serving and stopping: the application as a process among others."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from branchline import __version__, memory
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.server.app import Server
from branchline.server.connection import MAX_HEAD, Connection
from branchline.server.platform import Platform
from branchline.server.source import Network

STOP_LIMIT = 5.0
"""Seconds that stopping may take. Clients of what is still going on see a broken connection and ask again."""

log = structlog.get_logger("branchline.server")


class WebServer(uvicorn.Server):
    """uvicorn, with an end to open streams when it stops. `stopping` is called first."""

    def __init__(self, application: Server, stopping: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=Connection,
                h11_max_incomplete_event_size=MAX_HEAD,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # whose word counts, and for what, is decided in `source`
                timeout_keep_alive=15,
                timeout_graceful_shutdown=int(STOP_LIMIT) - 2,
            )
        )
        self._application = application
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the streams, then finish the requests."""
        self._stopping()
        self._application.live.close()
        await super().shutdown(sockets)


def serve(
    platform: Platform,
    listener: socket.socket,
    home: Path,
    trusted: Sequence[Network] = (),
    *,
    first_token: Path | None = None,
) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT, behind proxies that are trusted.

    The first admin's token is left in `first_token`, for who started us to fetch; None: in the home itself.
    """
    _offer_first_token(platform, first_token or home / "admin.token")
    application = Server(platform, trusted)
    # uvicorn raises the signal once more when it is done, for whoever listened before: nobody has to die of it
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, _nothing_more)
    memory.settle()
    host, port = listener.getsockname()[:2]
    log.info("serving", host=host, port=port, version=__version__)
    WebServer(application, _last_call).run([listener])


def bind(listen: str) -> socket.socket:
    """A socket on `host:port`; raises PlatformBroke (`port_taken`, `cannot_listen`) or BadInput."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or int(port) > 65535:
        raise BadInput(
            f"{listen!r} is no place to listen at.", code="bad_listen", hint="Set server_listen to host:port."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named, or asyncio takes it for something else than TCP and leaves 40 ms delays in
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        raise PlatformBroke(
            f"The server cannot listen at {listen}: {(error.strerror or str(error)).lower()}.",
            code="port_taken" if taken else "cannot_listen",
            hint="Another program listens there: stop it, or set server_listen to another port."
            if taken
            else "Set server_listen to an address of this machine.",
        ) from None
    return listener


def _offer_first_token(platform: Platform, file: Path) -> None:
    """Leave the first admin's token in a file of mode 0600, where there is no token yet."""

    def keep(token: str) -> None:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(token + "\n")
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)

    if platform.tokens.bootstrap(keep):
        log.info("first_token", file=str(file))


def _nothing_more(_signal: int, _frame: FrameType | None) -> None:
    """The server has stopped already."""


def _last_call() -> None:
    """From now on there are STOP_LIMIT seconds, whatever still blocks a thread."""
    log.info("stopping")
    timer = threading.Timer(STOP_LIMIT - 0.3, _leave_at_once)
    timer.daemon = True
    timer.start()


def _leave_at_once() -> None:
    log.warning("left_unfinished", seconds=STOP_LIMIT)
    logging.shutdown()
    os._exit(0)
