"""What somebody removes by hand from a live environment is put back within seconds, or `env show` says why not."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from branchline.adapters.secret_files import remove_instance_files
from branchline.operations.mending import EVERY
from branchline.ports import FOLDER
from tests.e2e.platform import Platform

pytestmark = pytest.mark.e2e


def docker(*words: str) -> list[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split()


def wait_until(true: Callable[[], bool], within: float = 60) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)


def live(platform: Platform, name: str) -> dict[str, Any]:
    """The deployment of a tiny project that is live by now."""
    repository = platform.project(name)
    repository.change("branchline.yaml", "window: 2s", "window: 0s")
    repository.push("first")
    done = platform.deploy(name)
    assert done["state"] == "succeeded", platform.why(done)
    return done


def mended(platform: Platform, name: str) -> list[list[str]]:
    """What was put back, oldest first."""
    lines = platform.api("GET", f"/audit?project={name}&limit=200").raise_for_status().json()
    return [line["detail"]["put_back"] for line in lines[::-1] if line["kind"] == "environment.mended"]


def shown(platform: Platform, name: str) -> str:
    """The trouble that `env show` tells of."""
    return str(json.loads(platform.cli("env", "show", name, "develop", "--json").stdout)["trouble"])


def test_what_is_removed_by_hand_is_put_back(platform: Platform, name: str) -> None:
    done = live(platform, name)
    place = f"{platform.layout.instance}-{name}_develop"
    first, second, worker = (f"{place}-d{done['id']}-{one}" for one in ("web-1", "web-2", "worker-1"))

    docker("rm", "--force", first)
    wait_until(lambda: mended(platform, name) == [["web 1"]])
    assert docker("ps", "--quiet", f"--filter=name={first}")
    docker("stop", "--time=1", worker)
    wait_until(lambda: len(mended(platform, name)) == 2)
    assert mended(platform, name) == [["web 1"], ["worker 1 (stopped)"]]

    docker("rm", "--force", first, second, worker)
    docker("network", "rm", place)
    wait_until(lambda: len(mended(platform, name)) == 3)
    assert mended(platform, name)[2] == ["the network", "web 1", "web 2", "worker 1"]
    assert platform.version(name) == "1"

    # One that crashed once keeps nothing from being mended.
    crash = ["docker", "exec", worker, "python3", "-c", "import os; os.kill(1, 15)"]
    subprocess.run(crash, check=False)  # it ends with its container, perhaps before it can say so
    wait_until(lambda: docker("inspect", "--format={{.RestartCount}} {{.State.Running}}", worker) == ["1", "true"])
    shutil.rmtree(platform.layout.routes / "environments" / f"{name}_develop")
    assert platform.version(name) is None
    wait_until(lambda: platform.version(name) == "1")
    wait_until(lambda: mended(platform, name)[3:] == [["the routes"]])
    assert shown(platform, name) == ""
    assert "Put back: the routes" in platform.log(done["id"])


def test_what_cannot_be_put_back_is_said_until_it_can(platform: Platform, name: str) -> None:
    done = live(platform, name)
    container = f"{platform.layout.instance}-{name}_develop-d{done['id']}-web-1"
    address = docker("inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)[0]
    network = f"{platform.layout.instance}-{name}_develop"

    docker("rm", "--force", container)
    stranger = f"{name}-stranger"
    docker(
        "run",
        "--detach",
        "--name",
        stranger,
        "--network",
        network,
        "--ip",
        address,
        "branchline/python:bookworm",
        "sleep",
        "300",
    )
    try:
        wait_until(lambda: "Web 1 is missing, and cannot be put back" in shown(platform, name))
        assert address in shown(platform, name)
        assert platform.version(name) == "1", "the other one still serves"
    finally:
        docker("rm", "--force", stranger)
    wait_until(lambda: shown(platform, name) == "")
    assert docker("ps", "--quiet", f"--filter=name={container}")


def test_what_the_operator_stopped_is_nothing_to_mend(platform: Platform, name: str) -> None:
    live(platform, name)
    mine = f"--filter=name={platform.layout.instance}-{name}_develop"

    platform.cli("stop", "--environments")
    assert (docker("ps", "--quiet", mine), len(docker("ps", "--all", "--quiet", mine))) == ([], 3)
    platform.up()
    wait_until(lambda: platform.version(name) == "1")
    time.sleep(1.2 * EVERY)  # runners have looked by then
    assert (mended(platform, name), shown(platform, name)) == ([], "")

    # While all is stopped, its network is unused, and `docker network prune` takes it away.
    platform.cli("stop", "--environments")
    docker("network", "rm", f"{platform.layout.instance}-{name}_develop")
    platform.up()
    wait_until(lambda: platform.version(name) == "1")
    wait_until(lambda: len(mended(platform, name)) == 1)
    assert mended(platform, name)[0][0] == "the network"
    assert shown(platform, name) == ""


def test_secrets_in_memory_are_written_again_when_the_machine_was_restarted(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    repository.change("branchline.yaml", "databases:\n  default", "secrets: files\ndatabases:\n  default")
    repository.change("branchline.yaml", "window: 2s", "window: 0s")
    opens = 'def main():\n    open(os.environ["BRANCHLINE_SECRETS"] + "/DATABASE_URL").read()\n'
    repository.change("app.py", "def main():\n", opens)
    repository.push("first")
    done = platform.deploy(name)
    assert done["state"] == "succeeded", platform.why(done)

    platform.cli("stop", "--environments")
    remove_instance_files(platform.layout.instance)
    platform.up()
    wait_until(lambda: platform.version(name) == "1")
    wait_until(lambda: len(mended(platform, name)) == 1)
    assert mended(platform, name)[0] == ["web 1 (stopped)", "web 2 (stopped)", "worker 1 (stopped)", FOLDER]
    assert shown(platform, name) == ""
