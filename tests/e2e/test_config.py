"""Config on a whole platform: layers reach containers, what is live can fall behind, and no value is left anywhere."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import psutil
import pytest

from tests.e2e.duo import QUICK
from tests.e2e.platform import Platform, Repository
from tests.openbao import operator

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
    print("wrapped", base64.encodebytes(b"x" + value.encode()).decode())
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


def test_a_key_that_is_required_keeps_everything_as_it_was_until_it_is_set(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    keys = "config: {required: [PLAIN_A, PLAIN_B], optional: {PLAIN_C: usual, PLAIN_D: usual}}\n"
    for old, new in {**QUICK, "databases:\n  default": f"{keys}databases:\n  default"}.items():
        repository.change("branchline.yaml", old, new)
    commit = repository.push("one")
    label = f"--filter=label=branchline.project={name}"

    def around() -> list[str]:
        """All containers and networks of the project."""
        return [*docker("ps", "--all", "--quiet", label).split(), *docker("network", "ls", "--quiet", label).split()]

    def check_refused(done: dict[str, Any], lacks: str) -> None:
        assert (done["state"], done["failed_stage"]) == ("failed", "prepare"), platform.why(done)
        assert done["failure"]["code"] == "config_missing"
        assert done["failure"]["sentence"] == f"The config of {name} develop lacks {lacks}."

    check_refused(platform.deploy(name), "PLAIN_A, PLAIN_B")
    assert around() == []
    platform.cli("config", "set", name, "_common", "PLAIN_A=common")
    platform.cli("config", "set", name, "develop", "PLAIN_B=develop", "PLAIN_D=develop")
    done = platform.deploy(name)
    assert (done["state"], done["commit"]) == ("succeeded", commit), platform.why(done)
    values = {"PLAIN_A": "common", "PLAIN_B": "develop", "PLAIN_C": "usual", "PLAIN_D": "develop"}
    assert told(platform, name, "develop") == values

    before = around()
    platform.cli("config", "unset", name, "develop", "PLAIN_B")
    check_refused(platform.deploy(name), "PLAIN_B")
    assert around() == before
    assert platform.api("GET", f"/projects/{name}/environments/develop").json()["live"]["id"] == done["id"]
    assert told(platform, name, "develop") == values


def layers(platform: Platform, name: str, environment: str) -> dict[str, tuple[str, bool, list[str]]]:
    """For each key the layer that answers, whether it hides the key there, and the layers beneath."""
    return {
        one["key"]: (one["origin"]["layer"], one["origin"]["hidden"], [beneath["layer"] for beneath in one["hides"]])
        for one in config(platform, "explain", name, environment)
    }


@pytest.mark.parametrize("notation", ["env", "json"])
def test_what_was_exported_is_brought_back(platform: Platform, name: str, notation: str, tmp_path: Path) -> None:
    """From a file, and through pipes. What is hidden stays so: .env cannot say it, in JSON it is null."""
    platform.project(name)
    here = f"/projects/{name}/environments/login/config"

    def values() -> dict[str, str]:
        found: dict[str, str] = platform.api("GET", f"{here}/values").json()["values"]
        return found

    strange = 'it\'s \\ "quoted" # $HOME\n  ü\n'
    platform.cli("config", "set", name, "develop", "A=develop", "B=develop", "C=develop")
    platform.cli("config", "set", name, "login", "A=login", "STRANGE=-", input=strange)
    platform.cli("config", "unset", name, "login", "B", "--hide")
    before = layers(platform, name, "login")
    expected = {"A": "login", "C": "develop", "STRANGE": strange.removesuffix("\n")}
    assert before["B"] == ("login", True, ["develop"])
    assert values() == expected

    file = tmp_path / f"login.{notation}"
    platform.cli("config", "export", name, "login", str(file), "--own")
    piped = platform.cli("config", "export", name, "login", "--own", "--format", notation).stdout
    assert piped == file.read_text()
    assert "develop" not in piped
    for words, text in (([str(file)], None), (["-", "--format", notation], piped)):
        others = {"A": "other", "C": "other", "MORE": "1", "STRANGE": None}
        others |= {"B": None} if notation == "json" else {}
        assert platform.api("PATCH", here, {"changes": others}).status_code == 200
        assert values()["A"] == "other"
        platform.cli("config", "import", name, "login", *words, "--replace", input=text)
        assert layers(platform, name, "login") == before
        assert values() == expected

    history = config(platform, "history", name, "login")
    assert [one["version"] for one in history] == [6, 5, 4, 3, 2, 1]
    assert {one["by"] for one in history} == {"bootstrap"}
    assert all(one["there"] for one in history)
    assert history[-1]["keys"] == {"A": "set", "STRANGE": "set"}
    assert history[-2]["keys"] == {"B": "hidden"}
    assert history[0]["keys"].items() >= {"A": "set", "STRANGE": "set", "C": "removed", "MORE": "removed"}.items()


def test_of_many_who_write_at_once_none_is_lost_and_one_is_first(platform: Platform, name: str) -> None:
    platform.project(name)

    def set_all(settings: list[str], *more: str) -> list[subprocess.CompletedProcess[str]]:
        with ThreadPoolExecutor(len(settings)) as people:
            words = ("config", "set", name, "develop", "--json", *more)
            return list(people.map(lambda setting: platform.cli(*words, setting, check=False), settings))

    done = set_all([f"K{number}=of {number}" for number in range(8)])
    assert [one.returncode for one in done] == [0] * 8, [one.stderr for one in done]
    assert sorted(json.loads(one.stdout)["version"] for one in done) == list(range(1, 9))
    values = config(platform, "export", name, "develop")["values"]
    assert values == {f"K{number}": f"of {number}" for number in range(8)}

    done = set_all([f"K0=again {number}" for number in range(8)], "--if-version", "8")
    assert sorted(one.returncode for one in done) == [0] + [2] * 7, [one.stderr for one in done]
    assert all("was changed by somebody else" in one.stderr for one in done if one.returncode)
    (first,) = [number for number, one in enumerate(done) if one.returncode == 0]
    assert platform.cli("config", "get", name, "develop", "K0").stdout == f"again {first}\n"

    lines = platform.api("GET", f"/audit?project={name}&limit=200").raise_for_status().json()
    changes = [line["detail"] for line in lines[::-1] if line["kind"] == "config.changed"]
    assert sorted(one["version"] for one in changes) == list(range(1, 10))
    assert sorted(key for one in changes for key in one["set"]) == sorted(["K0", *values])


def web_containers(platform: Platform, done: dict[str, Any]) -> set[str]:
    """The ids of a deployment's running web containers."""
    labels = {"instance": platform.layout.instance, "deployment": done["id"], "service": "web"}
    filters = [f"--filter=label=branchline.{key}={value}" for key, value in labels.items()]
    return set(docker("ps", "--quiet", "--no-trunc", *filters).split())


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def wait_until(true: Callable[[], bool], within: float = 60) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)


def test_what_was_pinned_comes_back_until_the_store_has_lost_it(platform: Platform, name: str) -> None:
    """Though every layer has moved on. Where a pinned version is gone it is said so, and who is left serves on."""
    repository = platform.project(name)
    repository.change("branchline.yaml", "window: 2s", "window: 0s")
    platform.cli("config", "set", name, "develop", "PLAIN_A=then")
    repository.push("one")
    done = platform.deploy(name)
    assert done["state"] == "succeeded", platform.why(done)
    platform.cli("config", "set", name, "develop", "PLAIN_A=now")
    platform.cli("config", "set", name, "_common", "PLAIN_B=now")
    before = web_containers(platform, done)
    removed, survivor = sorted(before)
    docker("rm", "--force", removed)
    wait_until(lambda: len(web_containers(platform, done)) == 2)
    (fresh,) = web_containers(platform, done) - before
    for container in (survivor, fresh):
        given = json.loads(docker("inspect", "--format={{json .Config.Env}}", container))
        assert [one for one in given if one.startswith("PLAIN_")] == ["PLAIN_A=then"]
    hosts: set[str] = set()

    def both_have_answered() -> bool:
        answer = platform.get(f"develop-{name}.localhost")
        if answer.status_code == 200:
            seen = answer.json()["variables"]
            assert {key: value for key, value in seen.items() if key.startswith("PLAIN_")} == {"PLAIN_A": "then"}
            hosts.add(answer.json()["host"])
        return hosts >= {survivor[:12], fresh[:12]}

    wait_until(both_have_answered)

    layout = platform.layout
    path = f"nonprod/destroy/{name}/env/develop"
    destroyed = operator(f"http://127.0.0.1:{layout.ports.openbao}", layout).ask("POST", path, versions=[1])
    assert destroyed.status_code == 204, destroyed.text
    docker("rm", "--force", fresh)

    def trouble() -> str:
        return str(json.loads(platform.cli("env", "show", name, "develop", "--json").stdout)["trouble"])

    wait_until(lambda: trouble() != "")
    gone = f"Version 1 of the config of {name} develop is gone from the store."
    assert "is missing, and cannot be put back" in trouble()
    assert gone in trouble()
    assert web_containers(platform, done) == {survivor}
    for _ in range(5):
        assert told(platform, name, "develop") == {"PLAIN_A": "then"}


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
        for file in folder.rglob("blobs/**/*"):
            if not file.is_file():
                continue
            with file.open("rb") as packed:
                content = (
                    gzip.decompress(packed.read()) if packed.read(2) == b"\x1f\x8b" and not packed.seek(0) else b""
                )
            found.extend([str(file)] if any(word.encode() in content for word in words) else [])
    return found


@contextmanager
def browser(platform: Platform) -> Iterator[httpx.Client]:
    """One that is logged in at the dashboard."""
    address = f"http://127.0.0.1:{platform.layout.ports.server}"
    token = (platform.home / "admin.token").read_text().strip()
    with httpx.Client(base_url=address, headers={"Origin": address}, follow_redirects=True, timeout=40) as client:
        assert client.post("/login", data={"token": token}).status_code == 200
        yield client


@pytest.mark.parametrize("kind", ["environment", "files"])
def test_no_value_is_found_anywhere(platform: Platform, name: str, kind: str) -> None:
    token = uuid4().hex
    canary = f"canary-{token}/+=&ü"
    lines = f"-----BEGIN {token[:12]}-----\nline-{token[::-1]}\n-----END {token[:12]}-----\n"
    build = f"built-{token[::-1]}-{token}"
    words = [token, token[::-1]]
    encoded = [base64.b64encode(b"." * shift + one.encode()).decode()[4:-4] for one in words for shift in range(3)]
    words += [*encoded, *(one[:16] for one in encoded)]  # the shorter ones are in the lines of what is wrapped
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

    here = f"/projects/{name}/environments/develop"
    stories = [f"/deployments/{one['id']}{rest}" for one in (done, failed) for rest in ("", "/log", "/events")]
    places = [*stories, here, "/audit?limit=1000", f"/deployments?project={name}", f"/projects/{name}", "/projects"]
    places += [f"{here}/config{rest}" for rest in ("", "/explanation", "/history", "/diff/staging")]
    answers = [platform.api("GET", place) for place in places]
    with browser(platform) as page:
        answers += [page.get(place) for place in [*stories, f"/projects/{name}", "/", "/metrics"]]
    for answer in answers:
        assert answer.status_code == 200, answer.url
        assert not [word for word in words if word in answer.text], answer.url

    label = f"--filter=label=branchline.project={name}"
    containers = docker("ps", "--all", "--quiet", "--no-trunc", label).split()
    images = docker("images", "--quiet", "--no-trunc", label).split()

    def of_docker_itself(file: str) -> bool:
        """Docker writes variables down in what it knows of a container: this is why there is `secrets: files`."""
        folder, what = Path(file).parent.name, Path(file).name
        of_a_container = folder in containers and what in {"config.v2.json", "config.json"}
        return kind == "environment" and (of_a_container or folder == "io.containerd.metadata.v1.bolt")

    root = Path(docker("info", "--format={{.DockerRootDir}}").strip())
    ours = Path(tempfile.gettempdir()).glob("branchline-*")
    others = [Path("/var/lib/containerd"), Path("/var/log"), Path.home() / ".docker" / "buildx", *ours]
    there = [platform.home, root, *(folder for folder in others if folder.exists())]
    assert files_that_hold(words, *there, leaving=of_docker_itself) == []
    in_memory = files_that_hold(words, Path("/dev/shm"), Path("/run"), leaving=of_docker_itself)
    of_what_is_live = f"/{name}_develop/d{done['id']}/"
    assert [file for file in in_memory if of_what_is_live not in file] == []
    keys = {"CANARY", "CANARY_LINES", "CANARY_BUILD"} if kind == "files" else set()
    assert {Path(file).name for file in in_memory} == keys

    inspected = json.loads(docker("inspect", *containers))
    given = json.dumps([about["Config"].pop("Env") for about in inspected])
    assert any(word in given for word in words) == (kind == "environment")
    history = "".join(docker("history", "--no-trunc", image) for image in images)
    for seen in (json.dumps(inspected), docker("inspect", *images), history):
        assert seen
        assert not [word for word in words if word in seen]
