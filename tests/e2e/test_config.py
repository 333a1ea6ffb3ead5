"""Config on a whole platform: layers reach containers, what is live can fall behind, and no value is left anywhere."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psutil
import pytest

from tests.e2e.platform import Platform, Repository

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BRANCHES = "  staging: {on: {branch: main}}\n  login: {on: {branch: login}}\n"
LEAK = """\
import base64, os, sys, time
from urllib.parse import quote

folder = os.environ.get("BRANCHLINE_SECRETS")
for key in ("CANARY", "CANARY_LINES"):
    value = open(f"{folder}/{key}").read() if folder else os.environ[key]
    print("raw", value)
    print("base64", base64.b64encode(b"x" + value.encode()).decode())
    print("url", "https://u:" + quote(value, safe="") + "@h/?q=" + quote(value))
    sys.stdout.write(value[:9]); sys.stdout.flush(); time.sleep(0.3); print(value[9:])
    print("as", repr(value), file=sys.stderr)
"""


def config(platform: Platform, *words: str) -> Any:
    return json.loads(platform.cli("config", *words, "--json").stdout)


@pytest.fixture
def name() -> str:
    return f"conf{uuid4().hex[:8]}"


def told(platform: Platform, project: str, environment: str) -> dict[str, str]:
    """The settings that a live container has."""
    seen: dict[str, str] = platform.get(f"{environment}-{project}.localhost").json()["variables"]
    return {key: value for key, value in seen.items() if key.startswith("PLAIN_")}


def test_a_branch_runs_with_what_it_inherits_until_it_is_applied(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    repository.change("branchline.yaml", "  staging: {on: {branch: main}}\n", BRANCHES)
    platform.cli("config", "set", name, "_common", "PLAIN_A=common", "PLAIN_B=common", "PLAIN_C=common")
    platform.cli("config", "set", name, "develop", "PLAIN_B=develop", "PLAIN_D=develop")
    platform.cli("config", "set", name, "login", "PLAIN_D=login")
    platform.cli("config", "unset", name, "login", "PLAIN_C", "--hide")
    commit = repository.push("one", branch="login")
    done = platform.deploy(name, "login")
    assert done["state"] == "succeeded", platform.why(done)
    assert done["config"] == {f"{name}/_common": 1, f"{name}/env/develop": 1, f"{name}/env/login": 2}
    assert told(platform, name, "login") == {"PLAIN_A": "common", "PLAIN_B": "develop", "PLAIN_D": "login"}

    explained = {one["key"]: one for one in config(platform, "explain", name, "login")}
    assert explained["PLAIN_B"]["origin"]["layer"] == "develop"
    assert [one["layer"] for one in explained["PLAIN_B"]["hides"]] == ["_common"]
    assert explained["PLAIN_C"]["origin"]["hidden"]
    assert {one["origin"]["by"] for one in explained.values()} == {"bootstrap"}
    differences = {one["key"]: one["what"] for one in config(platform, "diff", name, "login", "develop")}
    assert differences == {"PLAIN_C": "right", "PLAIN_D": "differs"}

    # Nothing that runs changes by itself; `env show` says so, and `apply` takes it up.
    platform.cli("config", "set", name, "develop", "PLAIN_B=again")
    assert "behind: develop 1 of 2 (PLAIN_B)" in platform.cli("env", "show", name, "login").stdout
    assert told(platform, name, "login")["PLAIN_B"] == "develop"
    applied = platform.ended(config(platform, "apply", name, "login", "--no-watch")["id"])
    assert applied["state"] == "succeeded", platform.why(applied)
    assert (applied["commit"], applied["release"]) == (commit, done["release"])
    assert {one["state"] for one in applied["stages"] if one["name"] in {"build", "publish"}} == {"skipped"}
    assert told(platform, name, "login")["PLAIN_B"] == "again"
    shown = json.loads(platform.cli("env", "show", name, "login", "--json").stdout)
    assert not shown["config"]["behind"]


def test_what_was_pinned_comes_back_though_every_layer_moved_on(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    platform.cli("config", "set", name, "develop", "PLAIN_A=then")
    repository.push("one")
    done = platform.deploy(name)
    platform.cli("config", "set", name, "develop", "PLAIN_A=now")
    platform.cli("config", "set", name, "_common", "PLAIN_B=now")
    label = [f"--filter=label=branchline.project={name}", f"--filter=label=branchline.deployment={done['id']}"]
    (removed, *_) = subprocess.run(
        ["docker", "ps", "--quiet", "--filter=label=branchline.service=web", *label],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run(["docker", "rm", "--force", removed], check=True, capture_output=True)
    until = time.monotonic() + 60
    seen: list[dict[str, str]] = []
    while len(seen) < 20 and time.monotonic() < until:
        answer = platform.get(f"develop-{name}.localhost")
        if answer.status_code == 200:
            seen.append(told(platform, name, "develop"))
        time.sleep(0.5)
    assert seen == [{"PLAIN_A": "then"}] * 20


@contextmanager
def watching_processes(words: list[str]) -> Iterator[list[str]]:
    """Every command line that holds one of these words, as long as the block lasts."""
    found: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or [])
                found.extend([line] if any(word in line for word in words) else [])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join()


def files_that_hold(words: list[str], *folders: Path, leaving: Callable[[str], bool] = lambda _: False) -> list[str]:
    """The files in which one of these words stands, compressed layers included."""
    patterns = [part for word in words for part in ("-e", word)]
    command = ["grep", "-rlaF", "--devices=skip", *patterns, "--", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # what vanishes makes it end with 2
    found = [file for file in done.stdout.splitlines() if not leaving(file)]
    for folder in folders:
        for file in folder.rglob("blobs/**/data"):
            with file.open("rb") as packed:
                content = (
                    gzip.decompress(packed.read()) if packed.read(2) == b"\x1f\x8b" and not packed.seek(0) else b""
                )
            found.extend([str(file)] if any(word.encode() in content for word in words) else [])
    return found


@pytest.mark.parametrize("kind", ["environment", "files"])
def test_no_value_is_found_anywhere(platform: Platform, name: str, kind: str) -> None:
    token = uuid4().hex
    canary = f"canary-{token}/+=&ü"
    lines = f"-----BEGIN {token[:12]}-----\nline-{token[::-1]}\n-----END {token[:12]}-----\n"
    build = f"built-{token[::-1]}-{token}"
    words = [token, token[::-1]]
    words += [base64.b64encode(b"." * shift + one.encode()).decode()[4:-4] for one in words for shift in range(3)]
    words += [quote(canary, safe="")[:-6]]

    repository: Repository = platform.project(name, {"leak.py": LEAK})
    repository.change(
        "branchline.yaml", "build: {target: runtime}", "build: {target: runtime, secrets: [CANARY_BUILD]}"
    )
    repository.change("branchline.yaml", "release: python3 -c \"print('migrated')\"", "release: python3 leak.py")
    repository.change("branchline.yaml", "databases:\n  default", f"secrets: {kind}\ndatabases:\n  default")
    repository.change("Dockerfile", "worker.py /app/\n", "worker.py leak.py /app/\n")
    repository.change(
        "Dockerfile",
        "ENV PYTHON",
        f"RUN --mount=type=secret,id=CANARY_BUILD test $(wc -c < /run/secrets/CANARY_BUILD) = {len(build)}\nENV PYTHON",
    )
    repository.push("one")
    with watching_processes(words) as listed:
        platform.cli("config", "set", name, "_common", "CANARY_BUILD=-", input=build)
        platform.cli("config", "set", name, "develop", "CANARY=-", input=canary)
        platform.cli("config", "set", name, "develop", "CANARY_LINES=-", input=lines)
        done = platform.deploy(name)
        assert done["state"] == "succeeded", platform.why(done)
        repository.change("app.py", "def main():\n", "def main():\n    import leak; sys.exit('no')\n")
        repository.push("two")
        failed = platform.deploy(name)
    assert failed["state"] == "failed"
    assert listed == []
    log = platform.log(done["id"])
    assert "raw [hidden]" in log
    assert "base64" in log

    places = [f"/deployments/{one['id']}{rest}" for one in (done, failed) for rest in ("", "/log")]
    here = f"/projects/{name}/environments/develop"
    places += [here, "/audit?limit=1000", f"/deployments?project={name}", f"/projects/{name}", "/projects"]
    places += [f"{here}/config{rest}" for rest in ("", "/explanation", "/history", "/diff/staging")]
    for place in places:
        answer = platform.api("GET", place)
        assert answer.status_code == 200, place
        assert not [word for word in words if word in answer.text], place

    def of_docker_itself(file: str) -> bool:
        """Docker writes variables down in what it knows of a container: this is why there is `secrets: files`."""
        return kind == "environment" and ("/containers/" in file or "/io.containerd" in file)

    root = subprocess.run(["docker", "info", "-f", "{{.DockerRootDir}}"], capture_output=True, text=True, check=True)
    docker = Path(root.stdout.strip())
    memory = Path("/dev/shm"), Path("/run")
    assert files_that_hold(words, platform.home, docker, leaving=of_docker_itself) == []
    inspected = subprocess.run(
        f"docker inspect $(docker ps -aq --filter=label=branchline.project={name}) "
        f"$(docker images -q --filter=label=branchline.project={name})",
        shell=True, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if kind == "files":
        assert not [word for word in words if word in inspected]
        assert [Path(file).name for file in files_that_hold([token], *memory) if name in file]
