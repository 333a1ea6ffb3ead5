"""A load generator that costs less than what it measures: it writes many requests at once and counts the answers."""

from __future__ import annotations

import asyncio
import time

CONNECTIONS = 32
IN_FLIGHT = 16
"""Requests that wait on one connection: the server answers them one after another."""


class _Connection(asyncio.Protocol):
    """Asks again as often as it is answered. `wrong` counts answers that are not 200."""

    def __init__(self, host: str, path: str) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._rest = b""
        self.answered = 0
        self.wrong = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request * IN_FLIGHT)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        answers = data.count(b"HTTP/1.1 ")
        self.wrong += answers - data.count(b"HTTP/1.1 200")
        self.answered += answers
        # A status line that is cut in two is counted when the rest of it comes.
        cut = data.rfind(b"H", len(data) - len(b"HTTP/1.1 200") + 1)
        self._rest = data[cut:] if cut >= 0 and b"HTTP/1.1 200".startswith(data[cut:]) else b""
        if b"HTTP/1.1 " in self._rest:
            self.answered -= 1
            answers -= 1
            self.wrong -= 1
        self.transport.write(self._request * answers)


def requests_per_second(port: int, host: str, path: str, seconds: float) -> float:
    """Answers per second from 127.0.0.1:port; raises RuntimeError unless all of them are 200."""
    return asyncio.run(_measure(port, host, path, seconds))


async def _measure(port: int, host: str, path: str, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Connection(host, path), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.2)
    before, began = sum(one.answered for one in connections), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(one.answered for one in connections) - before) / (time.perf_counter() - began)
    for one in connections:
        one.transport.abort()
    if wrong := sum(one.wrong for one in connections):
        raise RuntimeError(f"{wrong} requests to {host}{path} on port {port} were not answered with 200")
    return rate
