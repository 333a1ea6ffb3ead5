"""The disk use of a project that is deployed 200 times levels off, and what a rollback needs is still there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.conftest import running
from tests.e2e.platform import Platform, Repository

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DEPLOYMENTS = 200
PLACES = ("develop", "staging", "demo", "preview")
KEPT = 3
LOGS = 10
NAME = f"grows{uuid4().hex[:8]}"
LAYER = 1_000_000
"""Bytes that each release adds to the registry: random ones, so that no two have them in common."""


@pytest.fixture(scope="module")
def tidy() -> Iterator[Platform]:
    """A platform that keeps little, and looks for what may go all the time."""
    yield from running(
        Platform,
        BRANCHLINE_KEEP_RELEASES=str(KEPT),
        BRANCHLINE_KEEP_LOGS=str(LOGS),
        BRANCHLINE_BUILD_CACHE_MB="100",
        BRANCHLINE_HOUSEKEEPING_EVERY="3",
    )


@pytest.fixture(scope="module")
def grows(tidy: Platform) -> Repository:
    """A project with four environments, whose releases are all different."""
    repository = tidy.project(NAME)
    branches = ", ".join(f"{name}: {{on: {{branch: {name}}}}}" for name in PLACES)
    repository.write(
        {
            "Dockerfile": f"FROM branchline/python:bookworm\nCOPY version app.py /app/\n"
            f"RUN head -c {LAYER} /dev/urandom > /layer\nWORKDIR /app\n",
            "branchline.yaml": f"""\
project: {NAME}
services:
  web: {{command: python3 app.py, port: 8000, routes: [/], stop_grace_period: 1s,
         healthcheck: {{path: /healthz, interval: 50ms}}}}
environments: {{{branches}}}
watch: {{window: 0s}}
""",
        }
    )
    return repository


class Disk:
    """What a platform has on the disk, in the registry and in Docker."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        layout = platform.layout
        self._label = f"branchline.instance={layout.instance}"

    def look(self) -> dict[str, int]:
        """Megabytes in the registry, images, containers and worktrees."""
        home = self._platform.home
        return {
            "registry_mb": _bytes(home / "registry" / "data") // 1_000_000,
            "images": len(set(_docker("images", "--quiet", "--no-trunc", f"--filter=label=branchline.project={NAME}"))),
            "containers": len(_docker("ps", "--all", "--quiet", f"--filter=label={self._label}")),
            "worktrees": len(list((home / "work").glob("*/*"))),
        }


def _bytes(folder: Path) -> int:
    total = 0
    for where, _, files in os.walk(folder):  # leaves out what goes while it looks
        for file in files:
            with suppress(FileNotFoundError):
                total += Path(where, file).stat().st_size
    return total


def _docker(*words: str) -> list[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split()


def test_disk_use_levels_off(tidy: Platform, grows: Repository) -> None:
    disk = Disk(tidy)
    curve: list[dict[str, int]] = []
    ended: list[dict[str, Any]] = []
    commits: dict[str, list[str]] = {name: [] for name in PLACES}
    with ThreadPoolExecutor(len(PLACES)) as pool:
        for round_ in range(DEPLOYMENTS // len(PLACES)):
            for name in PLACES:
                grows.write({"version": f"{round_} {name}"})
                commits[name].append(grows.push(f"{round_}", branch=name))
            for done in pool.map(lambda name: tidy.deploy(NAME, name), PLACES):
                assert done["state"] == "succeeded", tidy.why(done)
                ended.append(done)
            if round_ % 5 == 4:
                curve.append(disk.look())
    for number, seen in enumerate(curve, 1):
        print(number * 5 * len(PLACES), seen)
    # Each environment keeps its newest three and what was live before; and some were not looked at yet.
    most = len(PLACES) * (KEPT + 1) + 5 * len(PLACES)
    for seen in curve:
        assert seen["images"] <= most, curve
        assert seen["registry_mb"] <= (most * LAYER + _base(tidy)) // 1_000_000, curve
        assert seen["containers"] <= 2 * len(PLACES), curve
        assert seen["worktrees"] <= len(PLACES), curve
    assert max(seen["registry_mb"] for seen in curve[5:]) <= 1.3 * max(seen["registry_mb"] for seen in curve[:5]), curve
    logs = ["healthy" in tidy.log(number) for number in range(1, DEPLOYMENTS + 1)]
    assert sum(logs) <= len(PLACES) * LOGS + 5 * len(PLACES), logs
    assert all(logs[-len(PLACES) * LOGS :]), logs

    # Going back is only a matter of starting: what is kept needs no build, in any environment.
    for name in PLACES:
        for back in range(2, KEPT + 1):
            before = tidy.deploy(NAME, name, commits[name][-back])
            built = {stage["state"] for stage in before["stages"] if stage["name"] in {"build", "publish"}}
            assert (before["state"], built) == ("succeeded", {"skipped"}), (name, back)
    # And what is long gone is built again, under its number.
    again = tidy.deploy(NAME, "develop", commits["develop"][0])
    assert (again["state"], again["release"]) == ("succeeded", ended[0]["release"]), tidy.log(again["id"])
    assert ended[0]["commit"] == again["commit"]


def _base(platform: Platform) -> int:
    """Bytes of the layers that all releases have in common, as the registry holds them."""
    layers = [path.stat().st_size for path in (platform.home / "registry").rglob("data") if path.is_file()]
    return max(layers)
