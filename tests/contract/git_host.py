"""Real repositories for the contract of Source: bare ones in a folder, and a server that refuses everybody."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.fakes.source import Files, Link, Module


def git(*words: str, stdin: bytes = b"") -> str:
    """Run git for a test, as somebody else than the platform."""
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["git", *words], input=stdin, capture_output=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class GitRepository:
    """The same face as FakeRepository, with a bare repository behind it."""

    def __init__(self, path: Path, url: str | None = None) -> None:
        self.path = path
        self.url = url or str(path)
        self._count = 0
        git("init", "--quiet", "--bare", "--initial-branch=main", str(path))

    def git(self, *words: str, stdin: bytes = b"") -> str:
        return git(f"--git-dir={self.path}", *words, stdin=stdin)

    def commit(self, branch: str, files: Files | None = None, subject: str = "A change") -> str:
        self._count += 1
        ref = f"refs/heads/{branch}"
        parent = self.git("for-each-ref", "--format=%(objectname)", ref)
        files = dict(files) if files is not None else {"file": f"{self._count}\n"}
        modules = {path: content for path, content in files.items() if isinstance(content, Module)}
        if modules:
            files[".gitmodules"] = "".join(
                f'[submodule "{path}"]\n\tpath = {path}\n\turl = {module.url}\n' for path, module in modules.items()
            )
        message = subject.encode()
        script = [f"commit {ref}\ncommitter A B <a@example.com> {1700000000 + self._count} +0000\n".encode()]
        script.append(b"data %d\n%s\n" % (len(message), message))
        script.append(f"from {parent}\n".encode() if parent else b"")
        script.append(b"deleteall\n")
        for path, content in files.items():
            if isinstance(content, Module):
                script.append(f"M 160000 {content.commit} {path}\n".encode())
                continue
            mode, text = ("120000", content.target) if isinstance(content, Link) else ("100644", content)
            data = text if isinstance(text, bytes) else text.encode()
            script.append(f"M {mode} inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(script))
        return self.git("rev-parse", ref)

    def tag(self, name: str, commit: str, annotated: bool = False) -> None:
        how = ["-c", "user.name=A", "-c", "user.email=a@example.com", "tag", "--force"]
        self.git(*how, *(["--annotate", "--message=about the tag"] if annotated else []), name, commit)

    def point(self, branch: str, commit: str | None) -> None:
        self.git("update-ref", *([f"refs/heads/{branch}", commit] if commit else ["-d", f"refs/heads/{branch}"]))


@contextmanager
def server(status: int) -> Iterator[str]:
    """A web server that gives every request this status; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with _served(Handler) as address:
        yield address


@contextmanager
def serving(folder: Path, bytes_a_second: int | None = None) -> Iterator[str]:
    """A web server that gives out the files of a folder, as slowly as told; yields its address."""

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if bytes_a_second is None:
                return super().copyfile(source, outputfile)
            with suppress(OSError):  # whoever asked has had enough
                while piece := source.read(bytes_a_second // 10):
                    outputfile.write(piece)
                    time.sleep(0.1)
            return None

        def log_message(self, *_: object) -> None: ...

    with _served(partial(Handler, directory=str(folder))) as address:
        yield address


@contextmanager
def _served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
