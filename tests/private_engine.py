"""A Docker engine of a test's own, which may be killed and filled up: the machine's is left alone.

It lives in a network namespace of its own, so that no bridge, address or rule of it meets those of the machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from docker import APIClient
from docker.errors import DockerException

from tests.contract.conftest import BASE_IMAGE

IMAGE = "small:1"
"""The image that the engine has: a shell, `sleep`, `dd` and `cat`."""

_PROGRAMS = "/bin/sh /bin/sleep /bin/dd /bin/cat /bin/true"
_START_SECONDS = 40


class PrivateEngine:
    """One `dockerd`, reached at `host`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/socket"
        self._space = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up; exec sleep infinity"])
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # Whoever had these numbers died with the engine, but where nobody reaps, they look alive.
        for file in ("pid", "exec/containerd/containerd.pid"):
            (self.folder / file).unlink(missing_ok=True)
        # nsenter, not `ip netns exec`, which would mount another /sys
        command = ["nsenter", f"--net=/proc/{self._space.pid}/ns/net", "dockerd", "--iptables=false"]
        command += [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"]
        command += [f"--pidfile={self.folder}/pid", f"--host={self.host}"]
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + _START_SECONDS
        while not self.answers():
            assert self._daemon.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it does."""
        with suppress(DockerException), APIClient(self.host, version="auto", timeout=2) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """SIGKILL to the engine alone: what it started lives on until the next one tidies up."""
        assert self._daemon
        self._daemon.kill()
        self._daemon.wait()

    def load(self) -> None:
        """Give it the image."""
        script = f"tar -chf - $(for one in {_PROGRAMS}; do echo $one; ldd $one | grep -o '/lib[^ ]*'; done | sort -u)"
        taken = subprocess.run(
            ["docker", "run", "--rm", "--network=none", BASE_IMAGE, "sh", "-c", script], capture_output=True, check=True
        )
        with APIClient(self.host, version="auto", timeout=60) as client:
            client.import_image_from_data(taken.stdout, repository="small", tag="1", changes=["ENV PATH=/bin"])

    def end(self) -> None:
        """Stop everything that belongs to it."""
        with suppress(DockerException), APIClient(self.host, version="auto", timeout=20) as client:
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True)
        if self._daemon and self._daemon.poll() is None:
            self._daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._daemon.wait(15)
            self._daemon.kill()
        for process in self._relatives():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._space.kill()
        self._space.wait()

    def _relatives(self) -> list[psutil.Process]:
        """The processes that name its folder: those of its containerd that outlived it."""
        found = psutil.process_iter(["cmdline"])
        return [one for one in found if any(str(self.folder) in word for word in one.info["cmdline"] or [])]


@contextmanager
def private_engine(*, room: str = "") -> Iterator[PrivateEngine]:
    """An engine that runs and has the image; with `room`, its data lie on a small disk of that size."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a private Docker engine")
    folder = Path(tempfile.mkdtemp(prefix="bl-engine-"))
    if room:
        (folder / "data").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder / "data")], check=True)
    engine = PrivateEngine(folder)
    try:
        engine.start()
        engine.load()
        yield engine
    finally:
        engine.end()
        for mount in sorted(_mounts_below(folder), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [place for line in lines if (place := line.split()[1]).startswith(f"{folder}/")]
