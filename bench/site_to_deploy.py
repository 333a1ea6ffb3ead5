"""The small site that benches deploy: one container that answers with its version, and a platform to deploy it."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from tests.e2e.platform import Platform, Repository

from branchline.stack.first_start import instance_name
from branchline.stack.ledger import SUPERVISOR, Ledger
from branchline.stack.programs import FORK_SERVER
from branchline.stack.removal import remove_instance

PAUSE = 0.05
"""Light load: each of the clients asks twenty times a second."""

APP = """\
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "0"

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = VERSION.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass

ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
"""
_MANIFEST = """\
project: {name}
services:
  web:
    command: python3 /app/app.py
    port: 8000
    routes: [/]
    healthcheck: {{path: /, timeout: 20s}}
    stop_grace_period: 1s
environments:
  develop: {{on: {{branch: develop}}}}
watch: {{window: 0s}}
"""


def files(name: str) -> dict[str, str]:
    """What the site's repository holds."""
    dockerfile = 'FROM branchline/python:bookworm\nCOPY app.py /app/\nCMD ["python3", "/app/app.py"]\n'
    return {"Dockerfile": dockerfile, "app.py": APP, "branchline.yaml": _MANIFEST.format(name=name)}


def app(version: str) -> str:
    """The site's program, one line changed."""
    return APP.replace('"0"', f'"{version}"')


def project(platform: Platform, name: str) -> Repository:
    """A site of this name, known to the platform, with nothing pushed yet."""
    repository = Repository(platform.repositories, name)
    repository.write(files(name))
    platform.api("POST", "/projects", {"name": name, "repository": str(repository.bare)}).raise_for_status()
    return repository


def push(repository: Repository, version: str) -> None:
    """A one-line change."""
    repository.write({"app.py": app(version)})
    repository.push(version)


@contextmanager
def platform(**settings: str) -> Iterator[Platform]:
    """A platform of its own, not up yet; gone at the end, with all that it has."""
    home = Path(tempfile.mkdtemp(prefix="bl-bench-"))
    home.chmod(0o711)
    made = Platform(home)
    made.environment |= {f"BRANCHLINE_{name.upper()}": value for name, value in settings.items()}
    try:
        yield made
    finally:
        made.cli("stop", check=False)
        remove_instance(instance_name(home))
        for folder in (home, made.repositories):
            shutil.rmtree(folder)


@contextmanager
def visitors(places: Sequence[tuple[int, str]], clients: int) -> Iterator[list[str]]:
    """A few people on the sites, given as (port, host); the list is filled with what failed."""
    failures: list[str] = []
    over = threading.Event()

    def visit(first: int) -> None:
        turn = first
        with httpx.Client(timeout=10) as client:
            while not over.wait(PAUSE):
                port, host = places[turn % len(places)]
                turn += clients
                try:
                    answer = client.get(f"http://127.0.0.1:{port}/", headers={"Host": host})
                    if answer.status_code != 200:
                        failures.append(f"{host}: HTTP {answer.status_code}")
                except httpx.HTTPError as error:
                    failures.append(f"{host}: {error!r}")

    people = [threading.Thread(target=visit, args=(number,)) for number in range(clients)]
    for one in people:
        one.start()
    try:
        yield failures
    finally:
        over.set()
        for one in people:
            one.join()


def parts(platform: Platform) -> dict[str, list[psutil.Process]]:
    """The processes of each part of the platform, children included (the supervisor's are the others)."""
    ledger = Ledger(platform.layout.run)
    found = {}
    for entry in filter(None, [*ledger.entries(), ledger.read(SUPERVISOR)]):
        if entry.identity and entry.alive:
            process = psutil.Process(entry.identity.pid)
            children = [] if entry.part in {SUPERVISOR, FORK_SERVER} else process.children(recursive=True)
            found[entry.part] = [process, *children]
    return found


def memory(platform: Platform, kind: str = "Pss") -> dict[str, float]:
    """Megabytes of each part: its proportional share, so that what processes have in common counts once.

    The `kind` Pss_Anon leaves out what lies on the disk as well (programs, libraries), and what all of PostgreSQL's
    processes share.
    """
    return {part: sum(_share(one.pid, kind) for one in processes) / 1e6 for part, processes in parts(platform).items()}


def _share(pid: int, kind: str) -> int:
    """Bytes, by the kernel's own sum over a process's memory; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")), 0)


def processor_seconds(platform: Platform) -> dict[str, float]:
    """Seconds of processor time that each part has used so far; what its children used stands apart."""
    used: dict[str, float] = {}
    for part, (process, *children) in parts(platform).items():
        times = process.cpu_times()
        used[part] = times.user + times.system
        used[f"{part}_children"] = (
            0.0 if part in {SUPERVISOR, FORK_SERVER} else times.children_user + times.children_system
        )
        for child in children:
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            used[f"{part}_children"] += times.user + times.system
    return used
