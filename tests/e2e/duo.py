"""A platform that tests may hurt: two runners share its work, its parts can be killed, paused and looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from branchline.stack.ledger import Ledger
from tests.e2e.platform import Platform, Repository

ROAD = ("checkout", "build", "test", "publish", "prepare", "release", "start", "verify", "switch", "watch", "drain")
UNDONE = (*ROAD[:-1], "undo")
SITES = (*ROAD, "undo")
"""For each stage there is a project `at-STAGE`, live in develop; that of `undo` watches longer than the others."""

RUNNERS = ("runner-nonprod", "runner-nonprod-2")
QUICK = {
    "replicas: 2, ": "",
    "interval: 200ms, healthy_after: 2": "interval: 100ms",
    "stop_grace_period: 10s": "stop_grace_period: 3s",
    "window: 2s": "window: 1s",
    "print('migrated')": "import uuid; print('migrated', uuid.uuid4())",
    "  worker:\n    command: python3 worker.py\n    stop_grace_period: 2s\n": "",
}
"""What makes the tiny project deploy in little time: one container, a short watch; and each run of its release command
says a word of its own."""


class Duo(Platform):
    """What it is asked while its server is away is asked again."""

    def api(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        until = time.monotonic() + 40
        while True:
            try:
                answer = super().api(method, path, body, **more)
            except httpx.TransportError:
                if time.monotonic() > until:
                    raise
            else:
                if answer.status_code != 503 or time.monotonic() > until:
                    return answer
            time.sleep(0.1)

    def quick_project(self, name: str, changes: Mapping[str, str] | None = None) -> Repository:
        """A tiny project that deploys in little time."""
        repository = self.project(name)
        for old, new in {**QUICK, **(changes or {})}.items():
            repository.change("branchline.yaml", old, new)
        return repository

    def push(self, repository: Repository, version: str, branch: str = "develop", fault: str = "") -> str:
        """Push a version of a tiny project; return its commit."""
        lines = (repository.tree / "app.py").read_text().split("\n")
        told = {"VERSION = ": f'VERSION = "{version}"', "FAULT = ": f'FAULT = "{fault}"'}
        lines = [next((new for old, new in told.items() if line.startswith(old)), line) for line in lines]
        repository.write({"app.py": "\n".join(lines)})
        return repository.push(version, branch)

    def kill(self, *parts: str) -> list[str]:
        """SIGKILL to each of these parts that lives; return which did."""
        return self.signal(signal.SIGKILL, *parts)

    def signal(self, number: signal.Signals, *parts: str) -> list[str]:
        """A signal to each of these parts that lives; return which did."""
        alive = []
        for part in parts:
            entry = Ledger(self.layout.run).read(part)
            if entry and entry.identity and entry.alive:
                os.kill(entry.identity.pid, number)
                alive.append(part)
        return alive

    def settled(self, within: float = 60) -> None:
        """Wait until every part does its work again."""
        until = time.monotonic() + within
        while (shown := self.cli("status", check=False)).returncode:
            assert time.monotonic() < until, shown.stdout
            time.sleep(0.2)

    def containers(self, project: str) -> list[str]:
        """The names of all of a project's containers, stopped ones included."""
        return sorted(docker("ps", "--all", *self._of(project), "--format={{.Names}}"))

    def networks(self, project: str) -> list[str]:
        """The names of all of a project's networks."""
        return sorted(docker("network", "ls", *self._of(project), "--format={{.Name}}"))

    def _of(self, project: str) -> list[str]:
        """Docker's filter for a project of this platform: another one on the machine may have one of that name."""
        labels = (f"branchline.instance={self.layout.instance}", f"branchline.project={project}")
        return [word for label in labels for word in ("--filter", f"label={label}")]

    def register(self, project: str) -> list[dict[str, Any]]:
        """The project's lines in the register, oldest first."""
        lines: list[dict[str, Any]] = []
        before = ""
        while page := self.api("GET", f"/audit?project={project}&limit=200{before}").raise_for_status().json():
            lines += page
            before = f"&before={page[-1]['id']}"
        return lines[::-1]

    def check_place(self, project: str, live: int) -> None:
        """In develop there is what belongs to the live deployment, and nothing else is left over."""
        environment = self.api("GET", f"/projects/{project}/environments/develop").json()
        assert (environment["live"]["id"], environment["running"], environment["queued"]) == (live, None, 0)
        container = f"{self.layout.instance}-{project}_develop-d{live}-web-1"
        assert self.containers(project) == [container]
        assert self.networks(project) == [f"{self.layout.instance}-{project}_develop"]
        published = f"127.0.0.1:{self.layout.ports.registry}/{environment['live']['image']}"
        assert docker("inspect", "--format={{.Config.Image}}", container) == [published]

    def await_tidy_images(self, project: str, within: float = 30) -> None:
        """Of a project's images only what was published stays, by no other name: a runner that begins sees to that."""
        until = time.monotonic() + within
        while left := [
            name
            for step in ("build", "test")
            for name in docker("images", f"branchline-{step}/{project}", "--format={{.Repository}}:{{.Tag}}")
        ]:
            assert time.monotonic() < until, left
            time.sleep(0.5)

    def check_story(self, number: int, stages: Sequence[str]) -> None:
        """A deployment's story is told once, and whole: by the register, and by its release command's only run."""
        about = self.deployment(number)
        mine = [line for line in self.register(about["project"]) if line["deployment"] == number]
        kinds = Counter(line["kind"] for line in mine)
        assert kinds["deployment.requested"] == kinds["deployment.finished"] == 1, mine
        ended = [line["detail"]["stage"] for line in mine if line["kind"] == "stage.ended"]
        assert ended == list(stages), ended
        ran = {line.split("migrated ")[1] for line in self.log(number).splitlines() if "migrated " in line}
        assert len(ran) == 1, f"the release command of deployment {number} ran {len(ran)} times"

    @contextmanager
    def visited(self, hosts: Sequence[str]) -> Iterator[list[tuple[float, str, str]]]:
        """People on all these sites, all the time; the list is filled with (when, host, what) of every failure."""
        failures: list[tuple[float, str, str]] = []
        over = threading.Event()

        def visit(first: int) -> None:
            turn = first
            with httpx.Client(timeout=15) as kept:
                while not over.wait(0.01):
                    host, turn = hosts[turn % len(hosts)], turn + 1
                    try:
                        answer = kept.get(
                            f"http://127.0.0.1:{self.layout.ports.proxy}/",
                            headers={"Host": host},
                            follow_redirects=False,
                        )
                        if answer.status_code != 200:
                            failures.append((time.monotonic(), host, f"HTTP {answer.status_code}"))
                    except httpx.HTTPError as error:
                        failures.append((time.monotonic(), host, repr(error)))

        threads = [threading.Thread(target=visit, args=(number * 7,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield failures
        finally:
            over.set()
            for thread in threads:
                thread.join()


def docker(*words: str) -> list[str]:
    """The lines that a docker command prints."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
