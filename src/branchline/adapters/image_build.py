"""Building with the docker command: which one can, how it is called, and what its failures mean."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from branchline.adapters.image_build_log import BuildLog
from branchline.adapters.process import Completed, ask
from branchline.domain.errors import BranchlineError, DeploymentFailed, PlatformBroke, Unreachable
from branchline.settings import without_settings

_USUAL = "/usr/bin/docker"
_DEFAULT_HOST = "unix:///var/run/docker.sock"
_NETWORK = re.compile(
    r"no such host|i/o timeout|connection refused|deadline exceeded|TLS handshake|x509|no route to host|\bEOF\b"
    r"|network is unreachable|connection reset|server misbehaving|toomanyrequests|50[0234] |timeout",
    re.IGNORECASE,
)
_SICK = re.compile(
    r"failed to create endpoint|could not find bridge|failed to (?:create|mount|prepare) (?:snapshot|mount|extraction)"
    r"|cannot allocate memory: unknown|fork/exec .*: resource temporarily unavailable"
)
_ENGINE = re.compile(
    r"Cannot connect to the Docker daemon|error during connect|transport is closing|Error response from daemon: Get"
    r"|server did not provide an image ID"  # the old command's way to say that the engine hung up
    r"|permission denied while trying to connect|rpc error: code = Unavailable|error reading from server",
    re.IGNORECASE,
)


def find_builder() -> str:
    """The docker command to build with: one that has BuildKit in it (before 23) or finds its buildx plugin.

    Raises PlatformBroke (`no_builder`).
    """
    tried = []
    for program in _candidates():
        version = _said(program, "--version")
        major = re.search(r"version (\d+)\.", version)
        if major and (int(major[1]) < 23 or "buildx" in _said(program, "buildx", "version")):
            return program
        tried.append(f"{program} ({version.partition(',')[0].strip() or 'does not start'})")
    raise PlatformBroke(
        "No docker command on this machine can build with BuildKit.",
        code="no_builder",
        hint=f"Install docker.io or docker-buildx. Tried: {', '.join(tried) or 'nothing, there is no docker command'}.",
    )


def _candidates() -> Iterator[str]:
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    seen = set()
    for folder in [*folders, str(Path(_USUAL).parent)]:
        program = shutil.which("docker", path=folder)
        if program and (real := Path(program).resolve()) not in seen:
            seen.add(real)
            yield program


def _said(program: str, *words: str) -> str:
    try:
        answer = ask([program, *words], timeout=15, env=builder_environment(None))
    except PlatformBroke:
        return ""
    return answer.output.decode("utf-8", "replace") if answer.exit_code == 0 else ""


def builder_environment(docker_host: str | None) -> dict[str, str]:
    """The environment that the docker command builds in, with the same engine that the API calls go to."""
    environment = without_settings(os.environ)
    environment.pop("DOCKER_CONTEXT", None)  # a context of the user's would lead to another engine
    environment["DOCKER_HOST"] = docker_host or environment.get("DOCKER_HOST") or _DEFAULT_HOST
    return environment | {
        "DOCKER_BUILDKIT": "1",
        "BUILDX_BUILDER": "default",  # the engine's own, so that the image is there afterwards
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # the digest tells what runs, not when it was built
        "DOCKER_CLI_HINTS": "false",
        "NO_COLOR": "1",
    }


def build_command(
    program: str,
    context: Path,
    *,
    dockerfile: Path,
    target: str | None,
    args: Mapping[str, str],
    tag: str,
    labels: Mapping[str, str],
    secrets: Mapping[str, Path],
    id_file: Path,
) -> list[str]:
    """The arguments of `docker build`. Secrets are files by their id: they go in by BuildKit, never into a layer."""
    return [
        program,
        "build",
        "--progress=plain",
        f"--iidfile={id_file}",
        f"--file={dockerfile}",
        f"--tag={tag}",
        *([f"--target={target}"] if target else []),
        *(f"--build-arg={key}={value}" for key, value in sorted(args.items())),
        *(f"--label={key}={value}" for key, value in sorted(labels.items())),
        *(f"--secret=id={name},src={file}" for name, file in sorted(secrets.items())),
        str(context),
    ]


def find_dockerfile(context: Path, name: str) -> Path:
    """The Dockerfile within the context, links resolved; raises DeploymentFailed (`no_dockerfile`)."""
    root = context.resolve()
    found = (root / name).resolve()
    if not found.is_relative_to(root):
        raise DeploymentFailed(
            f"The Dockerfile {name} is a link that leads out of the build context.",
            code="no_dockerfile",
            hint="Put the file itself into the repository.",
        )
    if not found.is_file():
        some = ", ".join(sorted(path.name for path in root.glob("*ockerfile*"))[:5]) if root.is_dir() else ""
        raise DeploymentFailed(
            f"There is no {name} in the build context.",
            code="no_dockerfile",
            hint=(f"There is: {some}. " if some else "") + "Set build.context and build.dockerfile in branchline.yaml.",
        )
    return found


def failure(done: Completed, log: BuildLog, target: str | None) -> BranchlineError:
    """What it means that `docker build` ended with another status than 0."""
    said = log.complaint or " ".join(done.tail[-3:])
    step = " ".join(log.failed_step.split())
    reason = _reason(said)
    if _ENGINE.search(said):
        error: BranchlineError = Unreachable(
            "Docker could not be reached while it built.", code="docker_unreachable", hint=reason
        )
    elif _SICK.search(said):  # no step of the Dockerfile was even begun
        error = PlatformBroke(
            "The Docker engine could not run a step of the build.",
            code="docker_refused",
            hint=f"Its own words: {reason}",
        )
    elif "no space left on device" in said or log.lacked_room:
        at = f" at `{_shortened(step)}`" if log.lacked_room else ""
        error = PlatformBroke(
            f"The disk of the Docker engine is full{': the build failed' if at else ''}{at}.",
            code="docker_disk_full",
            hint="`docker system df` shows what takes the room, `docker builder prune` frees some.",
        )
    elif base := re.search(r"load metadata for (\S+)|resolve image config for (\S+)|^(?:\[.*\] )?FROM (\S+)", step):
        error = _no_base(base[1] or base[2] or base[3], said, reason)
    elif re.search(r"target stage .* could not be found", said):
        error = DeploymentFailed(
            f"The Dockerfile has no stage {target}.",
            code="no_build_target",
            hint="Name a stage with `FROM … AS name`, and set it as `target` in branchline.yaml.",
        )
    elif wrong := re.search(r"dockerfile parse error (?:on )?line (\d+): (.*)", said):
        sentence = f"The Dockerfile is wrong in line {wrong[1]}: {wrong[2].rstrip('.')}."
        error = DeploymentFailed(sentence, code="build_failed", hint="Mend the Dockerfile.")
    elif re.search(r"file with no instructions|no build stage in current context", said):
        sentence = "The Dockerfile has no stage: it must begin with FROM."
        error = DeploymentFailed(sentence, code="build_failed", hint="Mend the Dockerfile.")
    elif step:
        error = _failed_step(step, said, reason, log.last_words)
    else:
        error = DeploymentFailed(f"The build failed: {reason.rstrip('.')}.", code="build_failed", hint=_LOOK)
    return error


def _failed_step(step: str, said: str, reason: str, last_words: str) -> DeploymentFailed:
    shown = _shortened(step)
    status = re.search(r"exit code: (\d+)", said)
    because = f" (exit status {status[1]})." if status else f": {reason.rstrip('.')}."
    hint = f"It last said: {last_words[:300]} — " if last_words else ""
    if status and status[1] == "137":
        hint += "137 often means that memory ran out. "
    return DeploymentFailed(f"The build failed at `{shown}`{because}", code="build_failed", hint=hint + _LOOK)


def _shortened(step: str) -> str:
    instruction = re.sub(r"^\[.*?\] ", "", step)
    return instruction if len(instruction) <= 200 else instruction[:200] + "…"


_LOOK = "the log holds the step's whole output, and `docker build` on your machine should fail in the same way."


def _no_base(image: str, said: str, reason: str) -> BranchlineError:
    name = image.removeprefix("docker.io/").removeprefix("library/")
    sentence = f"The base image {name} cannot be had."
    if name.startswith("docker/dockerfile"):
        sentence = f"The Dockerfile's `# syntax` line asks for {name}, which cannot be had."
        reason = f"Remove that line: BuildKit knows Dockerfiles without it. {reason}"
    if _NETWORK.search(said):
        return PlatformBroke(sentence, code="base_image_unavailable", hint=f"Its registry cannot be reached. {reason}")
    return DeploymentFailed(
        sentence, code="base_image_unavailable", hint=f"Look at its name and tag, or let Docker log in. {reason}"
    )


def _reason(said: str) -> str:
    """BuildKit's last words without the chain of who passed them on."""
    last = said.strip().rpartition("\n")[2].removeprefix("ERROR: ")
    passed_on = r"^(?:failed to (?:solve|build|create|compute|process|calculate)[^:]*: |rpc error: [^:]*: )+"
    words = re.sub(passed_on, "", last)
    return (words if len(words) <= 400 else words[:400] + "…") or "docker said nothing"
