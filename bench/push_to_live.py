"""How long a one-line change takes until users have it: the platform beside the same steps as bare commands.

Both sides build the same context with BuildKit, push to the same registry, start one container by digest on a network
of its own, probe it over HTTP until it answers 200, and lead traffic to it by one rename; they take turns in one run.
The time counts from the request (or the first command) until somebody who asks all the time gets the new version. The
platform does more in that time: it fetches the repository, reads the config, and writes down every step.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from tests.e2e.platform import Platform, Repository

import report
import site_to_deploy as site
from branchline.stack import binaries

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 10)
CLIENTS = 4


def docker(*words: str) -> str:
    """A bare docker command, with BuildKit; what it prints."""
    surroundings = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run(["/usr/bin/docker", *words], env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


class Steps:
    """Seconds of each step, from one to the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now


class Bare:
    """The same by hand: docker commands, and a Caddy that reads the address to dial from a file."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self._tree = folder / "bare"
        self._tree.mkdir()
        for name, text in site.files("site").items():
            (self._tree / name).write_text(text)
        self._dial = folder / "dial"
        self._image = f"127.0.0.1:{platform.layout.ports.registry}/bare"
        self.port = platform.layout.ports.proxy + 500
        self.host = "localhost"
        self._container = ""
        self._network = f"bare-{os.getpid()}"
        self._caddy_home = folder / "caddy.json"
        self._program = str(binaries.caddy(platform.home))

    @contextmanager
    def running(self) -> Iterator[None]:
        route = {"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"{{file.{self._dial}}}"}]}]}
        server = {"listen": [f"127.0.0.1:{self.port}"], "automatic_https": {"disable": True}, "routes": [route]}
        logging = {"logs": {"default": {"level": "ERROR"}}}
        content = {"admin": {"disabled": True}, "logging": logging, "apps": {"http": {"servers": {"bare": server}}}}
        self._caddy_home.write_text(json.dumps(content))
        docker("network", "create", self._network)
        caddy = subprocess.Popen([self._program, "run", "--config", str(self._caddy_home)], stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            caddy.terminate()
            caddy.wait()
            if self._container:
                docker("rm", "--force", self._container)
            docker("network", "rm", self._network)

    def change(self, version: str) -> None:
        (self._tree / "app.py").write_text(site.app(version))

    def deploy(self, version: str) -> dict[str, float]:
        steps = Steps()
        docker("build", "--quiet", "--tag", f"{self._image}:{version}", str(self._tree))
        steps.done("build")
        docker("push", "--quiet", f"{self._image}:{version}")
        steps.done("push")
        digest = docker("inspect", "--format={{index .RepoDigests 0}}", f"{self._image}:{version}")
        name = f"{self._network}-{version}"
        docker("run", "--detach", "--name", name, "--network", self._network, "--env", "PORT=8000", digest)
        address = docker(
            "inspect", f'--format={{{{(index .NetworkSettings.Networks "{self._network}").IPAddress}}}}', name
        )
        steps.done("run")
        await_version(f"http://{address}:8000/", self.host, version)
        steps.done("probe")
        fresh = self._dial.with_name("dial.new")
        fresh.write_text(f"{address}:8000")
        fresh.rename(self._dial)
        steps.done("rename")
        self._old, self._container = self._container, name
        return steps.seconds

    def tidy(self, version: str) -> None:
        if self._old:
            docker("rm", "--force", self._old)
        docker("rmi", "--force", f"{self._image}:{version}")


def await_version(url: str, host: str, version: str) -> None:
    """Ask until the new version answers."""
    end = time.monotonic() + 60
    with httpx.Client(timeout=5) as client:
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):  # the one that serves is a moment from being replaced
                if client.get(url, headers={"Host": host}).text == version:
                    return
            time.sleep(0.01)
    raise TimeoutError(f"{version} is not live at {host}")


class Ours:
    """The platform's side."""

    def __init__(self, platform: Platform, repository: Repository) -> None:
        self._platform = platform
        self._repository = repository
        self.port = platform.layout.ports.proxy
        self.host = "develop-site.localhost"
        self.pushing: list[float] = []

    def change(self, version: str) -> None:
        self._repository.write({"app.py": site.app(version)})
        self._repository.git("add", "--all")
        self._repository.git("commit", "--quiet", "-m", version)
        began = time.perf_counter()
        self._repository.git("push", "--quiet", "--force", "origin", "HEAD:refs/heads/develop")
        self.pushing.append(time.perf_counter() - began)

    def deploy(self, _version: str) -> dict[str, float]:
        steps = Steps()
        answer = self._platform.request("site")
        answer.raise_for_status()
        self._number = answer.json()["id"]
        steps.done("request")
        return steps.seconds

    def tidy(self, _version: str) -> dict[str, float]:
        """Wait for the end; the seconds of each stage, and of what lay between them until the switch."""
        done = self._platform.ended(self._number)
        if done["state"] != "succeeded":
            raise RuntimeError(f"{done['failure']}\n{self._platform.log(self._number)}")
        stages = {stage["name"]: stage["seconds"] for stage in done["stages"]}
        ahead = [stage for name, stage in stages.items() if name not in ("watch", "drain")]
        moments = [report.moment(done["requested_at"]), report.moment(done["started_at"])]
        switched = next(report.moment(stage["finished_at"]) for stage in done["stages"] if stage["name"] == "switch")
        return {
            **stages,
            "waiting": moments[1] - moments[0],
            "between_stages": switched - moments[1] - sum(ahead),
        }


def timed(side: Ours | Bare, version: str) -> tuple[float, dict[str, float]]:
    """Deploy, while somebody asks all the time: that takes its share of a small machine on both sides."""
    with ThreadPoolExecutor(1) as deploying:
        began = time.perf_counter()
        steps = deploying.submit(side.deploy, version)
        await_version(f"http://127.0.0.1:{side.port}/", side.host, version)
        return time.perf_counter() - began, steps.result()


def measure(ours: Ours, bare: Bare, label: str, clients: int) -> tuple[dict[str, float], dict[str, float]]:
    """Both in turns; medians of all that was timed."""
    took: dict[str, list[float]] = {}
    pairs: list[float] = []
    with site.visitors([(ours.port, ours.host), (bare.port, bare.host)], clients) as failures:
        for number in range(ROUNDS):
            seconds = {}
            for name, side in (("platform", ours), ("bare", bare))[:: 1 if number % 2 else -1]:
                version = f"{label}{number}"
                side.change(version)
                time.sleep(0.5)
                seconds[name], steps = timed(side, version)
                took.setdefault(f"{name}_seconds", []).append(seconds[name])
                for step, value in {**steps, **(side.tidy(version) or {})}.items():
                    took.setdefault(f"{name}_{step}", []).append(value)
                time.sleep(0.5)
            pairs.append(seconds["platform"] / seconds["bare"])
            print(f"{label} {number}: platform {seconds['platform']:.2f} s, bare {seconds['bare']:.2f} s", flush=True)
    figures = {f"{label}_{name}": statistics.median(values) for name, values in took.items()}
    figures[f"{label}_failed_requests"] = len(failures)
    for failure in failures[:5]:
        print(failure)
    return figures, {
        "median": figures[f"{label}_platform_seconds"] / figures[f"{label}_bare_seconds"],
        "pairs": statistics.median(pairs),
    }


def main() -> None:
    """Print and write the seconds of both sides, of each of their steps, and the ratios."""
    with site.platform() as platform, tempfile.TemporaryDirectory(prefix="bl-bench-bare-") as scratch:
        platform.up()
        ours, bare = Ours(platform, site.project(platform, "site")), Bare(Path(scratch), platform)
        with bare.running():
            for side in (ours, bare):  # the first of each makes what all others find: networks, layers, mirrors
                side.change("first")
                side.deploy("first")
                side.tidy("first")
            quiet, ratio = measure(ours, bare, "quiet", 0)
            loaded, ratio_loaded = measure(ours, bare, "loaded", CLIENTS)
    figures = {**quiet, **loaded, "git_push_seconds": statistics.median(ours.pushing)}
    ratios = {
        "ratio": ratio["median"],
        "ratio_of_pairs": ratio["pairs"],
        "ratio_under_load": ratio_loaded["median"],
    }
    report.write("push_to_live", figures, ratios)


if __name__ == "__main__":
    main()
