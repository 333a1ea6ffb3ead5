"""A small web service. Its VERSION and its FAULT are what tests change and push."""

import base64
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "1"
FAULT = ""
BEGAN = time.monotonic()
BUSY = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        BUSY.add(self)
        try:
            self.reply()
        finally:
            BUSY.discard(self)

    def reply(self):
        sick = FAULT == "sick" and time.monotonic() - BEGAN > 2.5
        if self.path == "/healthz":
            self.answer(503 if FAULT == "unhealthy" or sick else 200, {"ok": True})
            return
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path.removeprefix("/slow/")))
        if self.path in {"/events", "/socket", "/reach"}:
            {"/events": self.stream, "/socket": self.websocket, "/reach": self.reach}[self.path]()
            return
        shown = {key: value for key, value in os.environ.items() if key.startswith(("BRANCHLINE_", "PLAIN"))}
        names = sorted(os.environ)
        status = 500 if sick and self.path == "/" else 200
        self.answer(status, {"version": VERSION, "host": socket.gethostname(), "variables": shown, "names": names})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(f"data: {VERSION}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.2)

    def websocket(self):
        """Enough of RFC 6455 for a client that sends short text frames and wants them back."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 15 == 8:
                break
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self.rfile.read(head[1] & 127)))
            self.wfile.write(bytes([129, len(data)]) + data)
        self.close_connection = True

    def reach(self):
        host, port = self.headers["X-Target"].split(":")
        reached = "yes"
        try:
            socket.create_connection((host, int(port)), timeout=1.5).close()
        except OSError as error:
            reached = str(error)
        self.answer(200, {"reached": reached})

    def log_message(self, *args):
        print("asked", self.path, flush=True)


def main():
    if FAULT == "crash":
        sys.exit("no module named shop")
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    while BUSY:  # what was begun is finished; connections that only wait for a next request are not
        time.sleep(0.02)
    os._exit(0)


if __name__ == "__main__":
    main()
