"""A whole platform for end-to-end tests: the real `branchline up`, real repositories, real traffic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from branchline.layout import Layout

TINY = Path(__file__).parent / "tiny"
BRANCHLINE = Path(sys.executable).parent / "branchline"
_GIT = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


@dataclass
class Load:
    """What a constant load saw: how many answers of each version, and every failure."""

    versions: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(self.versions.values()) + len(self.failures)


class Repository:
    """A bare repository with a work tree beside it: what a developer has."""

    def __init__(self, folder: Path, name: str) -> None:
        self.bare = folder / f"{name}.git"
        self.tree = folder / name
        self.git("init", "--quiet", "--bare", str(self.bare), inside=folder)
        self.git("init", "--quiet", "--initial-branch=develop", str(self.tree), inside=folder)
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *words: str, inside: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=inside or self.tree,
            env={**os.environ, **_GIT},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def change(self, name: str, old: str, new: str) -> None:
        path = self.tree / name
        text = path.read_text()
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new))

    def push(self, message: str = "change", branch: str = "develop") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")


class Platform:
    """A running platform. `cli` and `api` are the two ways to it; `get` is a user of an environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "BRANCHLINE_HOME": str(home), "NO_COLOR": "1"}
        for name in ("BRANCHLINE_URL", "BRANCHLINE_TOKEN"):
            self.environment.pop(name, None)
        self.repositories = home.with_name(home.name + "-repositories")
        self.repositories.mkdir(exist_ok=True)

    def cli(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(BRANCHLINE), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            **more,
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def up(self) -> None:
        self.cli("up", "--detach")
        self.layout = Layout.load(self.home)
        token = (self.home / "admin.token").read_text().strip()
        self._api = httpx.Client(
            base_url=f"http://127.0.0.1:{self.layout.ports.server}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=40,
        )

    def stop(self) -> None:
        self.cli("stop")

    def api(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self._api.request(method, path, json=body, **more)

    # --- projects and deployments ---

    def project(self, name: str, files: Mapping[str, str] | None = None) -> Repository:
        """A tiny project of this name, known to the platform, with nothing pushed yet."""
        repository = Repository(self.repositories, name)
        for source in TINY.iterdir():
            text = source.read_text().replace("project: tiny", f"project: {name}")
            repository.write({source.name: text})
        repository.write(files or {})
        answer = self.api("POST", "/projects", {"name": name, "repository": str(repository.bare)})
        assert answer.status_code == 201, answer.text
        return repository

    def request(self, project: str, ref: str = "develop", commit: str | None = None) -> httpx.Response:
        return self.api("POST", f"/projects/{project}/deployments", {"ref": ref, "commit": commit})

    def deploy(self, project: str, ref: str = "develop", commit: str | None = None) -> dict[str, Any]:
        """Ask for a deployment and wait for its end."""
        answer = self.request(project, ref, commit)
        assert answer.status_code == 201, answer.text
        return self.ended(answer.json()["id"])

    def deployment(self, number: int) -> dict[str, Any]:
        shown: dict[str, Any] = self.api("GET", f"/deployments/{number}").raise_for_status().json()
        return shown

    def ended(self, number: int, within: float = 120) -> dict[str, Any]:
        until = time.monotonic() + within
        while time.monotonic() < until:
            shown = self.deployment(number)
            if shown["state"] not in ("queued", "running"):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"deployment {number} did not end: {json.dumps(shown)}\n{self.log(number)[-3000:]}")

    def stage(self, number: int, name: str, within: float = 60) -> dict[str, Any]:
        """Wait until a stage of a deployment has begun."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            shown = self.deployment(number)
            if any(stage["name"] == name for stage in shown["stages"]):
                return shown
            time.sleep(0.05)
        raise AssertionError(f"deployment {number} did not reach {name}: {shown}")

    def log(self, number: int) -> str:
        return self.api("GET", f"/deployments/{number}/log", headers={"Accept": "text/plain"}).text

    def why(self, done: Mapping[str, Any]) -> str:
        """Everything that tells why a deployment ended as it did."""
        faults = [
            line
            for file in sorted(self.layout.log.glob("runner-*.log"))
            for line in file.read_text(errors="replace").splitlines()
            if '"fault"' in line or '"error"' in line
        ]
        return "\n".join([json.dumps(done, indent=1), self.log(done["id"]), *faults[-5:]])

    # --- users ---

    def get(self, host: str, path: str = "/", timeout: float = 15) -> httpx.Response:
        address = f"http://127.0.0.1:{self.layout.ports.proxy}{path}"
        return httpx.get(address, headers={"Host": host}, timeout=timeout)

    def version(self, project: str, environment: str = "develop") -> str | None:
        answer = self.get(f"{environment}-{project}.localhost")
        return str(answer.json()["version"]) if answer.status_code == 200 else None

    @contextmanager
    def load(self, host: str, clients: int = 3) -> Iterator[Load]:
        """Constant requests, half of them over kept connections, half over fresh ones; nothing is tried twice."""
        seen, end, lock = Load(), threading.Event(), threading.Lock()

        def ask(client: httpx.Client) -> None:
            try:
                answer = client.get(f"http://127.0.0.1:{self.layout.ports.proxy}/", headers={"Host": host})
            except httpx.HTTPError as error:
                with lock:
                    seen.failures.append(repr(error))
                return
            with lock:
                if answer.status_code == 200:
                    version = answer.json()["version"]
                    seen.versions[version] = seen.versions.get(version, 0) + 1
                else:
                    seen.failures.append(f"HTTP {answer.status_code}: {answer.text[:100]}")

        def work(keep: bool) -> None:
            with httpx.Client(timeout=15) as kept:
                while not end.is_set():
                    if keep:
                        ask(kept)
                    else:
                        with httpx.Client(timeout=15) as fresh:
                            ask(fresh)
                    time.sleep(0.005)

        threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            end.set()
            for thread in threads:
                thread.join()
