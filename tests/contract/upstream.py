"""A small web server for a proxy to send requests to: it says who it is, and misbehaves when asked to."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Upstream(ThreadingHTTPServer):
    """Answers on a free port of its own with its own address, in a thread for each connection.

    `/status/503` answers with that status, `/slow` when `hold` is set, `/events` streams until then, `/headers` and
    `/body` show what arrived, `/crash` ends the connection without an answer.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.address = f"{host}:{self.server_port}"
        self.hold = threading.Event()
        self.paths: Counter[str] = Counter()
        self.idle: set[socket.socket] = set()
        self.resting = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Stop as an application server does on SIGTERM: accept nothing more, hang up on connections that rest."""
        self.hold.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()
        with self.resting:  # a request that begins now must not be cut off in the middle of its answer
            for connection in self.idle:
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        with self.server.resting:
            self.server.idle.add(self.connection)
        try:
            super().handle_one_request()
        finally:
            with self.server.resting:
                self.server.idle.discard(self.connection)

    def parse_request(self) -> bool:
        with self.server.resting:
            self.server.idle.discard(self.connection)
        return super().parse_request()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.paths[path] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path.startswith("/crash"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif path.startswith("/events"):
            self._stream()
        else:
            if path.startswith("/slow"):
                self.server.hold.wait(30)
            status = int(path.removeprefix("/status/")) if path.startswith("/status/") else 200
            shown = {"/headers": str(self.headers).encode(), "/body": body}
            self._answer(status, shown.get(path, self.server.address.encode()))

    do_POST = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Path", self.path)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        number = 0
        while not self.server.hold.wait(0.05):
            self.wfile.write(f"data: {number} {time.time()}\n\n".encode())
            number += 1

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
