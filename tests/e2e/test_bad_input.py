"""What people get wrong, end to end: a clear error, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Platform, Repository

pytestmark = pytest.mark.e2e

SMALL = """
project: {name}
build: {{target: runtime}}
services:
  web:
    command: python3 app.py
    port: 8000
    routes: [/]
    healthcheck: {{path: /healthz, timeout: 6s, interval: 100ms}}
    stop_grace_period: 2s
watch: {{window: 500ms}}
"""


def small(name: str, more: str = "") -> dict[str, str]:
    """The manifest of a project that deploys in a moment."""
    return {"branchline.yaml": SMALL.format(name=name) + more}


def refused(platform: Platform, project: str, status: int, code: str, **asked: Any) -> dict[str, Any]:
    """Ask for a deployment that must be refused at once; the problem that came back."""
    answer = platform.request(project, **asked)
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["title"]
    assert problem["hint"]
    return problem


def live(platform: Platform, name: str) -> Repository:
    repository = platform.project(name, small(name))
    repository.push()
    assert platform.deploy(name)["state"] == "succeeded"
    return repository


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("services:", "servises:", ":4:1: unknown key `servises` (did you mean `services`?)"),
        ("port: 8000", "port: 99999", "99999 must be at most 65535"),
        ("port: 8000", "port: [1]", "a list is no whole number"),
        ("    command: python3 app.py\n", "", "`command` is missing in `services.web`"),
        ("services:", "\tservices:", "a tab stands where YAML wants spaces"),
    ],
)
def test_a_wrong_manifest_names_line_and_remedy(platform: Platform, name: str, old: str, new: str, words: str) -> None:
    text = SMALL.format(name=name)
    repository = platform.project(name, {"branchline.yaml": text.replace(old, new)})
    repository.push()
    assert words in refused(platform, name, 422, "manifest_invalid")["title"]
    checked = platform.cli("project", "check", str(repository.tree / "branchline.yaml"), check=False)
    assert checked.returncode == 1
    assert words in checked.stdout + checked.stderr


def test_a_commit_without_a_manifest(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    (repository.tree / "branchline.yaml").unlink()
    repository.push()
    assert "branchline init" in refused(platform, name, 422, "no_manifest")["hint"]


def test_a_manifest_of_another_project(platform: Platform, name: str) -> None:
    repository = platform.project(name, small("other"))
    repository.push()
    refused(platform, name, 422, "wrong_project")


def test_two_projects_cannot_have_one_hostname(platform: Platform, name: str) -> None:
    rule = f"environments:\n  develop: {{on: {{branch: develop}}, domains: [{name}.example.com]}}\n"
    first, second = f"{name}a", f"{name}b"
    for project in (first, second):
        platform.project(project, small(project, rule)).push()
    assert platform.deploy(first)["state"] == "succeeded"
    problem = refused(platform, second, 409, "hostname_taken")
    assert first in problem["title"]
    assert platform.get(f"{name}.example.com").status_code == 200


def test_refs_and_commits_that_do_not_exist(platform: Platform, name: str) -> None:
    repository = platform.project(name, small(name))
    repository.push()
    problem = refused(platform, name, 422, "unknown_ref", ref="devlop")
    assert "develop" in problem["hint"]
    refused(platform, name, 422, "unknown_commit", commit="0123456789")
    repository.push(branch="feature/x")
    assert "develop" in refused(platform, name, 422, "no_environment", ref="feature/x")["hint"]
    for ref in ("--upload-pack=touch /tmp/x", "../../etc", "a b", "ü" * 300, "refs/heads/..", "a..b"):
        refused(platform, name, 422, "unknown_ref", ref=ref)


def test_a_repository_out_of_reach(platform: Platform, name: str) -> None:
    for number, address in enumerate(("http://127.0.0.1:9/shop.git", str(platform.home / "nothing.git"))):
        project = f"{name}{number}"
        answer = platform.api("POST", "/projects", {"name": project, "repository": address})
        assert answer.status_code == 201
        refused(platform, project, 422, "repository_unreachable")


def test_a_build_that_fails_leaves_the_live_release(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    repository.change("Dockerfile", "COPY app.py", "RUN echo before; ls /no/such/folder\nCOPY app.py")
    repository.push()
    done = platform.deploy(name)
    assert (done["state"], done["failed_stage"], done["failure"]["code"]) == ("failed", "build", "build_failed")
    assert "ls /no/such/folder" in done["failure"]["sentence"]
    assert "No such file or directory" in platform.log(done["id"])
    assert platform.version(name) == "1"


def test_a_release_command_that_fails_leaves_the_live_release(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    repository.write(small(name, "release: python3 -c \"raise SystemExit('no such column')\"\n"))
    repository.push()
    done = platform.deploy(name)
    assert (done["state"], done["failed_stage"]) == ("failed", "release")
    assert "no such column" in done["failure"]["sentence"]
    assert platform.version(name) == "1"


def test_logs_that_are_too_much_of_everything(platform: Platform, name: str) -> None:
    program = (
        "import sys\n"
        "sys.stdout.buffer.write(b'invalid \\xff\\xfe bytes and a nul \\x00\\n')\n"
        "sys.stdout.buffer.write(b'y' * 10_000_000 + b'\\n')\n"
        "for number in range(1_000_000):\n"
        "    sys.stdout.buffer.write(b'%099d\\n' % number)\n"
        "print('the very end')\n"
    )
    release = "release: python3 flood.py\n"
    repository = platform.project(name, {**small(name, release), "flood.py": program})
    repository.change("Dockerfile", "COPY app.py", "COPY flood.py app.py")
    repository.push()
    done = platform.ended(platform.request(name).json()["id"], within=240)
    assert done["state"] == "succeeded", done["failure"]
    log = platform.log(done["id"])
    assert len(log) < 60_000_000
    assert "invalid �� bytes and a nul \n" in log
    assert "more " in next(line for line in log.splitlines() if "yyyy" in line)
    assert "lines left out" in log
    assert "the very end" in log


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "ünïcode", "x" * 300, "-x", "A", "x;rm", "x\n"])
def test_names_that_are_none(platform: Platform, name: str) -> None:
    answer = platform.api("POST", "/projects", {"name": name, "repository": "/srv/x.git"})
    assert (answer.status_code, answer.json()["code"]) in {(422, "bad_name"), (422, "bad_input")}
    done = platform.cli("project", "add", "--repo", "/srv/x.git", "--", name, check=False)
    assert done.returncode == 2
    assert "Error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_platforms_cannot_have_one_home(platform: Platform) -> None:
    done = platform.cli("up", check=False)
    assert done.returncode == 2
    assert "already running" in done.stderr
    assert "branchline status" in done.stderr


def test_a_stranger_is_refused(platform: Platform, name: str) -> None:
    platform.project(name, small(name)).push()
    token = platform.cli("token", "create", f"v{name}", "--role", "viewer", "--json").stdout
    reader = {**platform.environment, "BRANCHLINE_TOKEN": json.loads(token)["token"]}
    platform.environment, admin = reader, platform.environment
    try:
        assert platform.cli("project", "show", name).returncode == 0
        done = platform.cli("deploy", name, "--ref", "develop", check=False)
        assert (done.returncode, "environment:deploy" in done.stderr) == (3, True)
        platform.environment = {**admin, "BRANCHLINE_TOKEN": "bl_nobody"}
        assert platform.cli("project", "list", check=False).returncode == 3
    finally:
        platform.environment = admin
    kinds = [line["kind"] for line in platform.api("GET", f"/audit?project={name}").json()]
    assert "access.refused" in kinds


def test_a_platform_that_is_not_there(platform: Platform, tmp_path: Path) -> None:
    environment = {**os.environ, "BRANCHLINE_URL": "http://127.0.0.1:9", "BRANCHLINE_TOKEN": "bl_x"}
    platform.environment, own = environment, platform.environment
    try:
        done = platform.cli("project", "list", check=False)
    finally:
        platform.environment = own
    assert done.returncode == 4
    assert "Hint:" in done.stderr


def test_a_repository_that_vanished_is_said(platform: Platform, name: str) -> None:
    repository = live(platform, name)
    shutil.rmtree(repository.bare)
    refused(platform, name, 422, "repository_unreachable")
    assert platform.version(name) == "1"
