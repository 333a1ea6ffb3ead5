"""Containers as we make them: walls, limits, log, and whether the image can run the command at all."""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from docker.errors import APIError, ImageNotFound
from docker.types import LogConfig, Mount

from branchline.adapters.docker_engine import DockerEngine, explanation
from branchline.domain.config import Secret
from branchline.domain.errors import DeploymentFailed, PlatformBroke
from branchline.domain.manifest import Limits
from branchline.ports import SECRETS

_LOG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"})
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GO_SYMLINK = 1 << 27
_GO_FOLDER = 1 << 31
_LEAST_CPUS = 0.01


class CannotRun(DeploymentFailed):
    """The image cannot run the command, however often it is tried."""

    code = "bad_image"


@dataclass(frozen=True)
class NewContainer:
    """What to create. `what` names it for people; without an address, Docker picks one."""

    what: str
    name: str
    image: str
    command: tuple[str, ...]
    variables: Mapping[str, Secret]
    limits: Limits
    labels: Mapping[str, str]
    network: str
    address: str | None = None
    hosts: Sequence[str] = ()
    keep_running: bool = False
    secrets: Path | None = None


class Maker:
    """Creates containers, and says in people's words why one cannot start."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine

    def create(self, new: NewContainer) -> str:
        """Create it, not yet started; return its id. Raises APIError 409 where the name is taken.

        Raises CannotRun (`command_not_found`, `command_not_executable`, `bad_image`) where the image cannot
        run the command; nothing is left behind then.
        """
        client = self._engine.client
        limits = new.limits
        host_config = client.create_host_config(
            # Docker's init is process 1 and passes signals on to the command. As process 1 itself, a command without
            # a handler for SIGTERM would not even notice it and every stop would last the whole grace period; nobody
            # would collect orphaned children either. The price: an image whose own init insists on being process 1
            # does not run, and a missing command only shows after the start, hence `_check_command`.
            init=True,
            nano_cpus=self._nano_cpus(limits),
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            pids_limit=limits.pids,
            # Usual images start as root and use chown and setuid on their way down, so not every capability can go.
            cap_drop=["NET_RAW"],
            security_opt=["no-new-privileges"],
            log_config=_LOG,
            # Not `unless-stopped`: when dockerd itself is killed, its successor ends what still runs and then counts
            # that as stopped by hand, so nothing would come back.
            restart_policy={"Name": "always"} if new.keep_running else None,
            extra_hosts=list(new.hosts),
            mounts=[Mount(SECRETS, str(new.secrets), type="bind", read_only=True)] if new.secrets else None,
        )
        endpoints = {new.network: client.create_endpoint_config(ipv4_address=new.address)}
        try:
            created: dict[str, str] = client.create_container(
                new.image,
                list(new.command),
                name=new.name,
                environment={key: value.reveal() for key, value in new.variables.items()},
                labels=dict(new.labels),
                host_config=host_config,
                networking_config=client.create_networking_config(endpoints),  # type: ignore[arg-type] # wrong stub
                use_config_proxy=False,  # the operator's own proxy settings are none of the project's business
            )
        except ImageNotFound:
            raise PlatformBroke(
                f"The image of {new.what} is not on the machine any more.",
                code="image_missing",
                hint="Somebody removed it while it was deployed; deploy again.",
            ) from None
        except APIError as error:
            if error.status_code == 409:
                raise
            self.refuse(new, error)
        try:
            self._check_command(new, created["Id"])
        except CannotRun:
            client.remove_container(created["Id"], force=True, v=True)
            raise
        return created["Id"]

    def refuse(self, new: NewContainer, error: APIError) -> NoReturn:
        """Raise CannotRun for what Docker refuses because of the image or the manifest, else the error."""
        said = explanation(error)
        if "OCI runtime create failed" in said and "executable file not found" in said:
            raise _no_command(new.what, new.command[0]) from error
        ours = ("unable to find user", "unable to find group", "OCI runtime create failed", "invalid mount config")
        if error.status_code == 400 or any(words in said for words in ours):
            raise CannotRun(
                f"Docker cannot start {new.what} from this image: {said}",
                hint="Look at USER, WORKDIR and ENTRYPOINT of the Dockerfile, and at the limits in the manifest.",
            ) from error
        raise error

    def _nano_cpus(self, limits: Limits) -> int | None:
        if limits.cpus is None:
            return None
        # Docker refuses more than the machine has, which as an upper limit means the same as no limit.
        return int(max(_LEAST_CPUS, min(limits.cpus, self._engine.processors)) * 1_000_000_000)

    def _check_command(self, new: NewContainer, container: str) -> None:
        """Look for the first word of what will run, as execvp would."""
        config = self._engine.client.inspect_container(container)["Config"]
        word = [*(config["Entrypoint"] or []), *(config["Cmd"] or [])][0]
        if "/" in word:
            candidates = [posixpath.join(config["WorkingDir"] or "/", word)]
        else:
            variables = dict(variable.partition("=")[::2] for variable in config["Env"] or [])
            folders = variables.get("PATH", _DEFAULT_PATH).split(":")
            candidates = [posixpath.join("/", config["WorkingDir"], folder, word) for folder in folders]
        found = [mode for path in candidates if (mode := self._mode(container, path)) is not None]
        if not found:
            raise _no_command(new.what, word)
        if not any(mode & 0o111 and not mode & _GO_FOLDER for mode in found):
            raise CannotRun(
                f"{new.what} cannot run {word!r}: it is in the image, but not executable.",
                code="command_not_executable",
                hint=f"Make it executable in the Dockerfile: RUN chmod +x {word}",
            )

    def _mode(self, container: str, path: str) -> int | None:
        """The mode of a file in a container (in Go's notation), None where there is none; links are followed."""
        for _ in range(2):
            answer = self._engine.client.head(
                self._engine.url(f"/containers/{container}/archive"), params={"path": path}, timeout=30
            )
            if answer.status_code == 404:
                return None
            if answer.status_code != 200:
                return 0o111  # nothing is known against it
            about: dict[str, Any] = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
            if not about["mode"] & _GO_SYMLINK:
                return int(about["mode"])
            path = about["linkTarget"]  # Docker has followed it to its end
        return None


def _no_command(what: str, word: str) -> CannotRun:
    return CannotRun(
        f"{what} cannot start: the image has no command {word!r}.",
        code="command_not_found",
        hint="Commands run without a shell: correct the manifest, install the program in the Dockerfile, "
        'or write ["sh", "-c", "…"].',
    )
