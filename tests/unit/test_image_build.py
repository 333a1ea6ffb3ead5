"""BuildKit's words, of the engine's own builder and of buildx, and what is made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from branchline.adapters.image_build import build_command, builder_environment, failure, find_builder
from branchline.adapters.image_build_log import BuildLog
from branchline.adapters.process import Completed
from branchline.domain.errors import BranchlineError, DeploymentFailed, PlatformBroke
from tests.fakes.log import FakeLog

EMBEDDED = """\
#1 [internal] load build definition from Dockerfile
#1 sha256:ac03f65dcb1713d3a38a9f2c1a3c867da68f2f90088eac62cba6e7673a2f636f
#1 transferring dockerfile: 379B done
#1 DONE 0.0s

#3 [internal] load metadata for docker.io/library/debian:12
#3 sha256:1962a083b8d9bb4c34f4050cdbfa07ac6aef4c06ab585d08581f08c04e794c13
#3 DONE 1.2s

#4 [runtime 1/3] FROM docker.io/library/debian:12
#4 sha256:9c0a40f6518efbe14645bbaba1b0f8678b5a2d29230f177c15797e8382e3aa63
#4 sha256:9c0a40f6518efbe14645bbaba1b0f8678b5a2d29230f177c15797e8382e3aa63 3.1MB / 28MB 0.2s
#4 extracting sha256:9c0a40f6518efbe14645bbaba1b0f8678b5a2d29230f177c15797e8382e3aa63 0.1s done
#4 CACHED

#5 [internal] load build context
#5 transferring context: 30B 0.0s done
#5 DONE 0.0s

#6 [runtime 2/3] COPY x /x
#6 sha256:123bf713c12f84020f413302f2476860002dc37d09f6135544db71e3967ee311
#6 DONE 0.0s

#7 [runtime 3/3] RUN echo hello &&     exit 3
#7 sha256:309dab70780944928b701d79f1bf6a9a5005f7f07cd4b444c33ce54b876480ce
#7 0.290 hello
#7 0.291
#7 0.292 #7 ERROR: not ours
#7 1.293 no newline#7 ERROR: executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3
------
 > [runtime 3/3] RUN echo hello &&     exit 3:
------
executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3
"""

BUILDX = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 379B done
#1 WARN: FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)
#1 DONE 0.0s

#2 [auth] library/debian:pull token for registry-1.docker.io
#2 DONE 0.0s

#5 [stage-0 2/3] COPY x /x
#5 CACHED

#6 [stage-0 3/3] RUN pip install -r requirements.txt
#6 0.412 Collecting nothing
#6 0.500 ERROR: no such package
#6 ERROR: process "/bin/sh -c pip install -r requirements.txt" did not complete successfully: exit code: 1
------
 > [stage-0 3/3] RUN pip install -r requirements.txt:
0.412 Collecting nothing
0.500 ERROR: no such package
------
Dockerfile:3
--------------------
   1 |     FROM debian:12
   2 |     COPY x /x
   3 | >>> RUN pip install -r requirements.txt
--------------------
ERROR: failed to solve: process "/bin/sh -c pip install -r requirements.txt" did not complete successfully: exit code: 1
"""


def read(text: str) -> tuple[BuildLog, FakeLog]:
    shown = FakeLog()
    log = BuildLog(shown)
    for line in text.splitlines():
        log.write(line)
    return log, shown


def error_of(text: str, target: str | None = None) -> BranchlineError:
    log, _ = read(text)
    return failure(Completed(1, tuple(text.splitlines()[-50:])), log, target)


def test_the_log_is_readable() -> None:
    _, shown = read(EMBEDDED)
    assert shown.lines == [
        "[internal] load metadata for docker.io/library/debian:12",
        "  (1.2 s)",
        "[runtime 1/3] FROM docker.io/library/debian:12",
        "  (cached)",
        "[runtime 2/3] COPY x /x",
        "[runtime 3/3] RUN echo hello &&     exit 3",
        "  hello",
        "  ",
        "  #7 ERROR: not ours",
        "  no newline",
        "executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3",
    ]


def test_the_log_of_buildx_is_readable() -> None:
    _, shown = read(BUILDX)
    assert shown.lines == [
        'building with "default" instance using docker driver',
        "[internal] load build definition from Dockerfile",
        "  WARN: FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
        "[stage-0 2/3] COPY x /x",
        "  (cached)",
        "[stage-0 3/3] RUN pip install -r requirements.txt",
        "  Collecting nothing",
        "  ERROR: no such package",
        "Dockerfile:3",
        "   1 |     FROM debian:12",
        "   2 |     COPY x /x",
        "   3 | >>> RUN pip install -r requirements.txt",
        'ERROR: failed to solve: process "/bin/sh -c pip install -r requirements.txt" did not complete successfully: '
        "exit code: 1",
    ]


def test_steps_side_by_side_say_whose_output_follows() -> None:
    _, shown = read("#1 [a 1/1] RUN a\n#2 [b 1/1] RUN b\n#1 0.1 one\n#1 0.2 two\n#2 0.3 three\n#1 DONE 2.0s\n")
    assert shown.lines == [
        "[a 1/1] RUN a",
        "[b 1/1] RUN b",
        "[a 1/1] RUN a",
        "  one",
        "  two",
        "[b 1/1] RUN b",
        "  three",
        "[a 1/1] RUN a",
        "  (2.0 s)",
    ]


@pytest.mark.parametrize(
    ("text", "sentence", "said"),
    [
        (EMBEDDED, "The build failed at `RUN echo hello && exit 3` (exit status 3).", "no newline"),
        (
            BUILDX,
            "The build failed at `RUN pip install -r requirements.txt` (exit status 1).",
            "ERROR: no such package",
        ),
    ],
    ids=["embedded", "buildx"],
)
def test_the_step_that_failed(text: str, sentence: str, said: str) -> None:
    error = error_of(text)
    assert isinstance(error, DeploymentFailed)
    assert (error.code, error.sentence) == ("build_failed", sentence)
    assert f"It last said: {said}" in error.hint


LOAD = "#3 [internal] load metadata for docker.io/{0}\n------\n > [internal] load metadata for docker.io/{0}:\n------\n"
LOOKUP = 'failed to do request: Head "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1: no such host'


@pytest.mark.parametrize(
    ("text", "kind", "code", "words"),
    [
        (LOAD.format("library/nope:1") + LOOKUP, PlatformBroke, "base_image_unavailable", "base image nope:1 cannot"),
        (
            LOAD.format("team/nope:1") + "ERROR: failed to solve: team/nope:1: docker.io/team/nope:1: not found",
            DeploymentFailed, "base_image_unavailable", "The base image team/nope:1 cannot be had.",
        ),
        (
            " \n------\n > resolve image config for docker.io/docker/dockerfile:1:\n------\n" + LOOKUP,
            PlatformBroke, "base_image_unavailable", "`# syntax` line asks for docker/dockerfile:1",
        ),
        (
            'ERROR: failed to solve: target stage "here" could not be found', DeploymentFailed,
            "no_build_target", "no stage here.",
        ),
        (
            "ERROR: failed to solve: dockerfile parse error on line 2: unknown instruction: RNU (did you mean RUN?)",
            DeploymentFailed, "build_failed", "wrong in line 2: unknown instruction: RNU (did you mean RUN?).",
        ),
        (
            "failed to solve with frontend dockerfile.v0: failed to create LLB definition: file with no instructions",
            DeploymentFailed, "build_failed", "The Dockerfile has no stage",
        ),
        (
            "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?",
            PlatformBroke, "docker_unreachable", "Docker could not be reached",
        ),
        ("failed to copy: write /x: no space left on device", PlatformBroke, "docker_disk_full", "disk"),
        (
            '------\n > [a 1/1] COPY missing /x:\n------\nfailed to compute cache key: "/missing" not found: not found',
            DeploymentFailed, "build_failed", 'at `COPY missing /x`: "/missing" not found: not found.',
        ),
        (
            "------\n > [a 1/1] RUN x:\n------\nexecutor failed running [x]: failed to create endpoint 2x on network "
            "bridge: adding veth1 to bridge docker0 failed: could not find bridge docker0: no such interface",
            PlatformBroke, "docker_refused", "The Docker engine could not run a step",
        ),
        ("something new", DeploymentFailed, "build_failed", "The build failed: something new."),
        ("", DeploymentFailed, "build_failed", "The build failed: docker said nothing."),
    ],
)  # fmt: skip
def test_what_failures_mean(text: str, kind: type[BranchlineError], code: str, words: str) -> None:
    error = error_of(text, "here")
    assert isinstance(error, kind)
    assert error.code == code
    assert words in error.sentence
    assert error.hint


def test_the_command(tmp_path: Path) -> None:
    command = build_command(
        "/usr/bin/docker", tmp_path, dockerfile=tmp_path / "Dockerfile", target="run time", args={"B": "2 3", "A": "1"},
        tag="t:1", labels={"branchline.project": "shop"}, id_file=Path("/id"),
        secrets={"ca": Path("/ca.crt"), "TOKEN": Path("/memory/0")},
    )  # fmt: skip
    assert command == [
        "/usr/bin/docker", "build", "--progress=plain", "--iidfile=/id", f"--file={tmp_path}/Dockerfile", "--tag=t:1",
        "--target=run time", "--build-arg=A=1", "--build-arg=B=2 3", "--label=branchline.project=shop",
        "--secret=id=TOKEN,src=/memory/0", "--secret=id=ca,src=/ca.crt", str(tmp_path),
    ]  # fmt: skip


def test_builds_go_to_the_engine_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    monkeypatch.setenv("DOCKER_HOST", "tcp://other:1")
    assert builder_environment("ssh://x")["DOCKER_HOST"] == "ssh://x"
    assert builder_environment(None)["DOCKER_HOST"] == "tcp://other:1"
    assert "DOCKER_CONTEXT" not in builder_environment(None)
    monkeypatch.delenv("DOCKER_HOST")
    assert builder_environment(None)["DOCKER_HOST"] == "unix:///var/run/docker.sock"


def program(folder: Path, version: str, buildx: bool) -> None:
    """A docker command of this version, with or without the plugin."""
    folder.mkdir()
    plugin = "echo github.com/docker/buildx v0.13" if buildx else "echo unknown >&2; exit 1"
    script = f'#!/bin/sh\ncase "$1" in --version) echo "Docker version {version}, build 1";; buildx) {plugin};; esac\n'
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)


def test_the_first_command_that_has_buildkit_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "new", "28.2.2", buildx=False)
    program(tmp_path / "plugin", "28.2.2", buildx=True)
    program(tmp_path / "old", "20.10.24+dfsg1", buildx=False)
    rest = os.environ["PATH"]
    for order, chosen in ((["new", "plugin", "old"], "plugin"), (["new", "old"], "old"), (["old", "plugin"], "old")):
        monkeypatch.setenv("PATH", os.pathsep.join([*(str(tmp_path / name) for name in order), rest]))
        assert find_builder() == str(tmp_path / chosen / "docker")
