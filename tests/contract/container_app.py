#!/usr/bin/python3
"""The program in the image that contract tests run: `app VERB ARGUMENTS…`, each verb a way to behave."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(2)
        said = f"{os.environ.get('ANSWER', 'hello')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the requests in flight


def serve() -> int:
    server = _Server(("0.0.0.0", 8000), _Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()
    print("said goodbye", flush=True)
    return 0


def idle() -> int:
    time.sleep(3600)
    return 0


def stubborn() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn", flush=True)
    return idle()


def crash(status: str, *words: str) -> int:
    print(*words, flush=True)
    return int(status)


def say(*lines: str) -> int:
    for line in lines:
        print(line)
    return 0


def both() -> int:
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    return 0


def nap(seconds: str, status: str = "0") -> int:
    print("token", time.time_ns(), flush=True)
    time.sleep(float(seconds))
    print("awake", flush=True)
    return int(status)


def tell(variable: str) -> int:
    print(repr(os.environ.get(variable)))
    return 0


def open_(name: str) -> int:
    file = Path("/run/secrets", name)
    print(repr(file.read_text() if file.exists() else None))
    return 0


def flood(lines: str) -> int:
    for number in range(int(lines)):
        sys.stdout.write(f"{number:09} {'x' * 89}\n")
    return 0


def endless_line(size: str) -> int:
    sys.stdout.write("y" * int(size) + "\nthe end\n")
    return 0


def garbage() -> int:
    for part in (b"before \xff\xfe after\n", b"half \xc3", b"\xa9 whole\n", b"no newline"):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        time.sleep(0.2)
    return 0


def eat(megabytes: str) -> int:
    eaten = bytearray(int(megabytes) * 1024 * 1024)
    eaten[::4096] = b"x" * len(eaten[::4096])
    return idle()


def reach(host: str, port: str) -> int:
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = connection.makefile("rb").read()
    except OSError as error:
        print("not reached:", error)
        return 1
    print(answer.decode().splitlines()[-1])
    return 0


def close_output() -> int:
    print("closing", flush=True)
    os.close(1)
    os.close(2)
    time.sleep(1)
    os._exit(5)


def walls() -> int:
    with Path("/proc/self/status").open() as status:
        print(*(line.strip() for line in status if line.startswith(("NoNewPrivs", "CapEff"))))
    return 0


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    sys.exit(globals()[{"open": "open_"}.get(verb, verb)](*arguments))
