"""The main job, end to end: what users see while releases come, fail and go."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from socket import create_connection
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as connect_websocket

from tests.e2e.platform import Platform, Repository

pytestmark = pytest.mark.e2e

STAGES = [
    "checkout",
    "build",
    "test",
    "publish",
    "prepare",
    "release",
    "start",
    "verify",
    "switch",
    "watch",
    "drain",
]


def live(platform: Platform, name: str) -> Repository:
    """A project whose version 1 is live in develop."""
    repository = platform.project(name)
    commit = repository.push("first")
    done = platform.deploy(name, commit=commit)
    assert done["state"] == "succeeded", platform.log(done["id"])
    assert platform.version(name) == "1"
    return repository


def containers(platform: Platform, name: str) -> list[str]:
    """The names of a project's running containers."""
    label = f"label=branchline.project={name}"
    words = ["docker", "ps", "--filter", label, "--format", "{{.Names}}"]
    return sorted(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def test_a_push_becomes_a_healthy_live_release(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    commit = repository.push("the first one")
    platform.cli("config", "set", name, "develop", "GREETING=hello-secret-greeting")
    done = platform.deploy(name)
    assert done["state"] == "succeeded", platform.log(done["id"])
    assert [stage["name"] for stage in done["stages"]] == STAGES
    assert {stage["state"] for stage in done["stages"]} == {"passed"}
    assert (done["commit"], done["subject"], done["release"]) == (commit, "the first one", 1)
    assert done["image"].startswith(f"{name}@sha256:")
    assert done["config"] == {f"{name}/_common": 0, f"{name}/env/develop": 1}

    seen = platform.get(f"develop-{name}.localhost").json()
    assert seen["variables"]["BRANCHLINE_COMMIT"] == commit
    assert seen["variables"]["PLAIN"] == "from the manifest"
    assert {"DATABASE_URL", "GREETING", "PORT"} <= set(seen["names"])

    log = platform.log(done["id"])
    assert "migrated" in log
    assert "2 passed" in log
    assert "hello-secret-greeting" not in log
    assert len(containers(platform, name)) == 3


def test_the_new_release_takes_over_without_a_lost_request(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    first = platform.api("GET", f"/projects/{name}/environments/develop").json()["live"]["id"]
    platform.cli("config", "set", name, "develop", "GREETING=a-secret-greeting")
    repository.change("app.py", 'VERSION = "1"', 'VERSION = "2"')
    repository.write({"migrations/0002_till.sql": "SELECT 1;\n"})
    commit = repository.push("second")
    with platform.load(f"develop-{name}.localhost") as seen:
        done = platform.deploy(name)
        time.sleep(0.3)
    assert done["state"] == "succeeded", platform.log(done["id"])
    assert seen.failures == []
    assert seen.versions["1"] > 20
    assert seen.versions["2"] > 20
    names = containers(platform, name)
    assert len(names) == 3
    assert all(f"-d{done['id']}-" in one for one in names)
    tells_what_changed(platform, name, done, first, commit)


def tells_what_changed(platform: Platform, name: str, done: dict[str, Any], first: int, commit: str) -> None:
    """The story has the commit, the config key and the migration; so has the register, and neither has a value."""
    changes = done["changes"]
    assert (changes["since"], changes["unknown"], changes["config_unknown"]) == (first, "", "")
    assert [(one["sha"], one["author"], one["subject"]) for one in changes["came"]["newest"]] == [
        (commit, "Ada", "second")
    ]
    assert (changes["came"]["total"], changes["went"]["total"]) == (1, 0)
    assert changes["migrations"] == [{"path": "migrations/0002_till.sql", "what": "added"}]
    assert [(one["layer"], one["before"], one["after"], one["set"]) for one in changes["config"]] == [
        ("develop", 0, 1, ["GREETING"])
    ]
    assert (done["replaces"], done["live"], done["attempts"]) == (first, True, 1)
    assert done["proof"].startswith("token ")
    assert done["outcome"].startswith("Live since ")
    before = platform.deployment(first)
    assert before["replaced_by"] == done["id"]
    assert before["outcome"].startswith(f"Went live; replaced by {done['id']} after ")
    assert before["changes"]["since"] is None

    told = platform.cli("deployments", "show", str(done["id"])).stdout
    for words in (
        f"Since deployment {first}, which was live at ",
        f"    {commit[:8]}  ",
        "second (Ada)",
        "    added     migrations/0002_till.sql",
        "  config of develop, version none → 1\n    set       GREETING",
        f"image       {done['image']}",
        "config      develop 1",
        f"replaces    deployment {first}",
    ):
        assert words in told, told
    lines = platform.api("GET", f"/audit?project={name}&limit=100").json()
    mine = {line["kind"]: line["detail"] for line in reversed(lines) if line["deployment"] == done["id"]}
    for kind in ("deployment.switched", "deployment.finished"):
        what = {"commit": commit, "image": done["image"], "release": 2, "config": done["config"], "since": first}
        what |= {"keys": ["GREETING"], "migrations": {"migrations/0002_till.sql": "added"}}
        assert mine[kind].items() >= what.items(), mine[kind]
    assert "a-secret-greeting" not in told + json.dumps([done, before, lines]) + platform.log(done["id"])


@pytest.mark.parametrize(
    ("fault", "stage", "code", "words"),
    [
        ("tests", "test", "tests_failed", "the tests find a fault"),
        ("crash", "verify", "crashed", "no module named shop"),
        ("unhealthy", "verify", "unhealthy", "HTTP 503"),
    ],
)
def test_a_bad_release_leaves_the_old_one_alone(
    platform: Platform, name: str, fault: str, stage: str, code: str, words: str
) -> None:
    repository = live(platform, name)
    before = containers(platform, name)
    repository.change("app.py", 'FAULT = ""', f'FAULT = "{fault}"')
    repository.change("app.py", 'VERSION = "1"', 'VERSION = "bad"')
    repository.push("a mistake")
    with platform.load(f"develop-{name}.localhost") as seen:
        done = platform.deploy(name)
    assert (done["state"], done["failed_stage"], done["failure"]["code"]) == ("failed", stage, code)
    assert words in done["failure"]["sentence"]
    assert done["failure"]["hint"]
    assert seen.failures == []
    assert set(seen.versions) == {"1"}
    assert containers(platform, name) == before


def test_a_release_that_turns_sick_is_undone(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    before = containers(platform, name)
    repository.change("app.py", 'FAULT = ""', 'FAULT = "sick"')
    repository.change("app.py", 'VERSION = "1"', 'VERSION = "sick"')
    repository.change("branchline.yaml", "window: 2s", "window: 20s")
    repository.push("a slow poison")
    done = platform.deploy(name)
    assert (done["state"], done["failed_stage"]) == ("undone", "watch")
    assert done["failure"]["code"] == "sick_after_switch"
    assert platform.version(name) == "1"
    assert containers(platform, name) == before
    environment = platform.api("GET", f"/projects/{name}/environments/develop").json()
    assert environment["live"]["id"] == done["replaces"]


def test_staging_is_another_world(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    repository.change("app.py", 'VERSION = "1"', 'VERSION = "staged"')
    repository.push("for staging", branch="main")
    platform.cli("config", "set", name, "staging", "ONLY_STAGING=yes")
    done = platform.deploy(name, ref="main")
    assert done["state"] == "succeeded", platform.log(done["id"])
    assert platform.version(name, "staging") == "staged"
    assert platform.version(name) == "1"
    names = platform.get(f"staging-{name}.localhost").json()["names"]
    assert "ONLY_STAGING" in names
    assert "ONLY_STAGING" not in platform.get(f"develop-{name}.localhost").json()["names"]

    target = subprocess.run(
        [
            *("docker", "ps", "-q", "--filter", f"label=branchline.project={name}"),
            *("--filter", "label=branchline.environment=staging", "--filter", "label=branchline.service=web"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[0]
    words = ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", target]
    address = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    for host, reached in ((f"staging-{name}.localhost", True), (f"develop-{name}.localhost", False)):
        address_of_proxy = f"http://127.0.0.1:{platform.layout.ports.proxy}/reach"
        answer = httpx.get(address_of_proxy, headers={"Host": host, "X-Target": f"{address}:8000"}, timeout=15)
        assert (answer.json()["reached"] == "yes") is reached


def test_a_known_commit_is_not_built_again(platform: Platform, name: str) -> None:
    live(platform, name)
    again = platform.deploy(name)
    states = {stage["name"]: stage["state"] for stage in again["stages"]}
    assert [states[stage] for stage in ("build", "test", "publish")] == ["skipped"] * 3
    assert (again["state"], again["release"]) == ("succeeded", 1)


def test_long_requests_and_streams_outlive_a_switch(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    other = f"{name}o"
    live(platform, other)
    host, port = f"develop-{other}.localhost", platform.layout.ports.proxy
    slow: list[int] = []

    def ask_slowly() -> None:
        slow.append(platform.get(f"develop-{name}.localhost", "/slow/4", timeout=30).status_code)

    repository.change("app.py", 'VERSION = "1"', 'VERSION = "2"')
    repository.push("second")
    asked = threading.Thread(target=ask_slowly)
    with (
        create_connection(("127.0.0.1", port)) as wire,
        connect_websocket(f"ws://{host}:{port}/socket", sock=wire, ping_interval=None) as socket,
        httpx.stream("GET", f"http://127.0.0.1:{port}/events", headers={"Host": host}, timeout=30) as events,
    ):
        stream = events.iter_lines()
        number = platform.request(name).json()["id"]
        platform.stage(number, "verify")
        asked.start()
        done = platform.ended(number)
        assert done["state"] == "succeeded", platform.log(number)
        socket.send("still here")
        assert socket.recv(timeout=5) == "still here"
        assert next(line for line in stream if line) == "data: 1"
    asked.join()
    assert slow == [200]


def test_a_stopped_and_restarted_platform_still_serves(platform: Platform, name: str) -> None:
    live(platform, name)
    platform.stop()
    platform.up()
    assert platform.version(name) == "1"
    done = platform.deploy(name)
    assert done["state"] == "succeeded", platform.log(done["id"])


def test_production_moves_by_tag_with_an_identity_of_its_own(platform: Platform, name: str) -> None:
    rule = '  production: {on: {tag: "v*"}}\n'
    repository = platform.project(name)
    repository.change("branchline.yaml", "environments:\n", f"environments:\n{rule}")
    repository.change(
        "branchline.yaml", "databases:\n  default", "config: {required: [PLAIN_OWN]}\ndatabases:\n  default"
    )
    repository.push("first")
    assert platform.request(name, ref="develop").json()["environment"] == "develop"
    repository.git("tag", "v1.0.0")
    repository.git("push", "--quiet", "origin", "v1.0.0")
    platform.cli("config", "set", name, "develop", "PLAIN_OWN=value-of-develop", "ONLY_DEVELOP=yes")
    lacking = platform.deploy(name, ref="v1.0.0")
    assert (lacking["state"], lacking["failed_stage"]) == ("failed", "prepare"), platform.log(lacking["id"])
    assert lacking["failure"]["sentence"] == f"The config of {name} production lacks PLAIN_OWN."
    platform.cli("config", "set", name, "production", "PLAIN_OWN=value-of-production", "ONLY_PRODUCTION=yes")
    done = platform.deploy(name, ref="v1.0.0")
    assert (done["state"], done["environment"]) == ("succeeded", "production"), platform.log(done["id"])
    assert done["config"] == {f"{name}/env/production": 1}
    seen = platform.get(f"production-{name}.localhost").json()
    assert seen["variables"]["PLAIN_OWN"] == "value-of-production"
    assert {"ONLY_PRODUCTION", "ONLY_DEVELOP"} & set(seen["names"]) == {"ONLY_PRODUCTION"}
    shown = platform.cli("config", "get", name, "production", "ONLY_PRODUCTION", check=False)
    assert shown.returncode == 3
    assert "ONLY_PRODUCTION" in platform.cli("config", "list", name, "production").stdout

    # What production runs with changes by `apply` alone, and nobody gets to see a value on the way.
    platform.cli("config", "set", name, "production", "PLAIN_OWN=value-of-production-2")
    told = [platform.cli("env", "show", name, "production").stdout]
    assert "behind: production 1 of 2 (PLAIN_OWN)" in told[0]
    told.append(platform.cli("config", "explain", name, "production", "--json").stdout)
    told.append(platform.cli("config", "diff", name, "production", "develop", "--json").stdout)
    explained = {one["key"]: one["origin"] for one in json.loads(told[1])}
    assert {key: (one["layer"], one["version"], one["by"]) for key, one in explained.items()} == {
        "ONLY_PRODUCTION": ("production", 1, "bootstrap"),
        "PLAIN_OWN": ("production", 2, "bootstrap"),
    }
    differences = {one["key"]: one["what"] for one in json.loads(told[2])}
    assert differences == {"ONLY_PRODUCTION": "left", "ONLY_DEVELOP": "right", "PLAIN_OWN": "unknown"}
    asked = json.loads(platform.cli("config", "apply", name, "production", "--no-watch", "--json").stdout)
    applied = platform.ended(asked["id"])
    assert (applied["state"], applied["commit"]) == ("succeeded", done["commit"]), platform.log(applied["id"])
    assert applied["config"] == {f"{name}/env/production": 2}
    assert platform.get(f"production-{name}.localhost").json()["variables"]["PLAIN_OWN"] == "value-of-production-2"
    told += [platform.cli("env", "show", name, "production").stdout, platform.log(applied["id"])]
    assert "up to date" in told[3]
    assert "value-of-" not in "".join(told)
    repository.push("a branch that is called like a tag", branch="v2.0.0")
    answer = platform.request(name, ref="v2.0.0")
    assert (answer.status_code, answer.json()["code"]) == (422, "no_environment")


def test_cancelling_a_deployment(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    repository.change("branchline.yaml", "command: python3 test_app.py", "command: sleep 60")
    repository.push("tests that never end")
    number = platform.request(name).json()["id"]
    platform.stage(number, "test")
    platform.cli("deployments", "cancel", str(number))
    done = platform.ended(number, within=20)
    assert (done["state"], done["failed_stage"]) == ("cancelled", "test")
    assert platform.version(name) == "1"
    assert platform.api("POST", f"/deployments/{number}/cancel").status_code == 409


def test_newer_pushes_supersede_those_that_wait(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    numbers = []
    for version in ("2", "3", "4"):
        repository.write({"note": version})
        repository.change("app.py", f'VERSION = "{int(version) - 1}"', f'VERSION = "{version}"')
        repository.push(version)
        numbers.append(platform.request(name).json()["id"])
    ended = [platform.ended(number) for number in numbers]
    assert (ended[2]["state"], platform.version(name)) == ("succeeded", "4")
    assert ended[1]["state"] == "superseded"
    assert ended[1]["superseded_by"] == numbers[2]
