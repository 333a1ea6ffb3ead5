"""The doctor: looks for what is wrong with the platform or its machine, and says what to do about each thing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from branchline.adapters.image_build import find_builder
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.errors import BranchlineError
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import control, first_start, key_files, ports, register_state
from branchline.stack.inspection import PlatformStatus, look, parts_of
from branchline.stack.ledger import SUPERVISOR, Ledger
from branchline.stack.openbao import OpenBao
from branchline.stack.part import NotReady, last_line
from branchline.stack.process import Process

LEAST_GIT = (2, 30)
LEAST_FREE_BYTES = 2_000_000_000
LEAST_FREE_SHARE = 0.05
SHARED = Path("/dev/shm")  # noqa: S108
FIRST_PERSON = 1000
"""Users with lower numbers are the system's own."""
REMOVE_IPC = re.compile(r"^\s*RemoveIPC\s*=\s*(\S+)", re.MULTILINE)
PASSWORD_IN_URL = re.compile(r"://[^/\s]*:[^/\s]*@")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, and what to do where it is wrong."""

    subject: str
    well: bool
    text: str
    hint: str = ""


def examine(settings: Settings, credentials: Collection[Path] = ()) -> list[Finding]:
    """Look at everything, also at files outside of the home that hold `credentials`.

    Raises PlatformBroke (`not_set_up`) where there is no platform.
    """
    status = look(settings)
    layout = status.layout
    return [
        _supervisor(status),
        *_parts(status),
        *_programs(settings, layout),
        _account(),
        _own_account(layout),
        _builder(),
        _git(),
        *_keys(settings, layout, credentials),
        *_secrets(layout),
        *_audit(settings, layout),
        *_register(settings, layout),
        *_ports(settings, layout),
        _gateway(settings, layout),
        *_disks(layout),
        _clock(layout),
    ]


def _supervisor(status: PlatformStatus) -> Finding:
    if status.supervisor is not None:
        return Finding("supervisor", True, f"process {status.supervisor} watches the parts")
    if any(part.pid for part in status.parts):
        return Finding(
            "supervisor",
            False,
            "it is dead; its parts live on unwatched",
            "`branchline up` takes over what still runs.",
        )
    return Finding("supervisor", False, "the platform is stopped", "Start it with `branchline up`.")


def _parts(status: PlatformStatus) -> Iterator[Finding]:
    stopped = status.supervisor is None and not any(part.pid for part in status.parts)
    for part in status.parts:
        if stopped and not part.well:
            continue  # said once, of the supervisor
        if part.well:
            note = f", started anew {part.restarts} times" if part.restarts > 1 else ""
            yield Finding(part.name, True, f"{part.state} at {part.endpoint}{note}")
            continue
        log = status.layout.log / f"{part.name}.log"
        said = last_line(log)
        hint = f"Its log is {log}." + (f" It said last: {said}" if said else "") if log.exists() else ""
        if status.supervisor is None:
            hint = "Start the platform with `branchline up`."
        yield Finding(part.name, False, f"{part.state}: {part.reason}", hint)


def _programs(settings: Settings, layout: Layout) -> Iterator[Finding]:
    """Whether everything that must be started could be."""
    missing = False
    for part in parts_of(settings, layout):
        try:
            part.command()
        except BranchlineError as error:
            missing = True
            yield Finding(f"program of {part.name}", False, error.sentence, error.hint)
    if not missing:
        yield Finding("programs", True, "all servers' programs are there")


def _account() -> Finding:
    try:
        user = first_start.account()
    except BranchlineError as error:
        return Finding("account", False, error.sentence, error.hint)
    return Finding("account", True, f"servers run as {user.name if user else 'this user'}")


def _own_account(layout: Layout) -> Finding:
    """Whether our own server has fewer rights than we have."""
    try:
        user = first_start.own_server_account()
    except BranchlineError as error:
        return Finding("server's account", False, error.sentence, error.hint)
    if user is None:
        text = "the server runs as this user, and may do whatever this user may: read every key, use Docker"
        return Finding("server's account", True, text, "Where root runs the platform, the server has its own account.")
    entry = Ledger(layout.run).read("server")
    if entry and entry.identity and entry.alive and not Process(entry.identity).runs_as(user.uid):
        text = f"the server does not run as {user.name} yet"
        return Finding("server's account", False, text, "Restart the platform: `branchline stop`, `branchline up`.")
    return Finding("server's account", True, f"the server runs as {user.name}, which reads no key but its own")


def _builder() -> Finding:
    try:
        return Finding("builder", True, f"{find_builder()} builds with BuildKit")
    except BranchlineError as error:
        return Finding("builder", False, error.sentence, error.hint)


def _git() -> Finding:
    hint = f"Install git {'.'.join(map(str, LEAST_GIT))} or newer: apt-get install git."
    try:
        told = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return Finding("git", False, "git does not start", hint)
    found = re.search(r"(\d+)\.(\d+)", told)
    well = found is not None and (int(found[1]), int(found[2])) >= LEAST_GIT
    return Finding("git", well, told.strip(), "" if well else hint)


def _keys(settings: Settings, layout: Layout, credentials: Collection[Path]) -> Iterator[Finding]:
    """Every key is there, young enough, and where nobody else gets at it."""
    others = [layout.home / "admin.token", *credentials]
    with contextlib.suppress(OSError):
        if PASSWORD_IN_URL.search((layout.home / "settings.toml").read_text()):
            others.append(layout.home / "settings.toml")
    user = own = None
    with contextlib.suppress(BranchlineError):  # said of the accounts by themselves
        user = first_start.account()
        own = first_start.own_server_account()
    wrong = False
    uids = (user.uid if user else None, own.uid if own else None)
    for trouble in key_files.troubles(layout.home / "keys", others, *uids, foreign_store=bool(settings.vault_url)):
        wrong = True
        yield Finding("keys", False, trouble.text, trouble.hint)
    if not wrong:
        yield Finding("keys", True, "all there, and private")


def _secrets(layout: Layout) -> Iterator[Finding]:
    try:
        root = SecretFiles(layout.instance).root()
    except BranchlineError as error:
        return iter([Finding("secrets", False, error.sentence, error.hint)])
    return memory(root, (layout.home / "keys").stat().st_uid)  # whoever runs the platform, not whoever asks


def memory(root: Path, user: int, machine: Path = Path("/")) -> Iterator[Finding]:
    """Whether secrets that are files below `root` stay there, and in memory; of `machine`, its files are looked at."""
    if root == SHARED and user >= FIRST_PERSON and _removes_ipc(machine):
        yield Finding(
            "secrets",
            False,
            f"those that are files lie in {root}, which is emptied when user {user} logs out",
            "Write RemoveIPC=no into /etc/systemd/logind.conf and restart systemd-logind, "
            "or run the platform as a user of the system.",
        )
    else:
        yield Finding("secrets", True, f"those that are files lie in memory, in {root}")
    with contextlib.suppress(OSError):
        areas = [line.split()[0] for line in (machine / "proc/swaps").read_text().splitlines()[1:]]
        if on_disk := [area for area in areas if not area.startswith("/dev/zram")]:
            text = f"swap is on ({', '.join(on_disk)}): what is in memory can reach the disk"
            yield Finding("swap", True, text, "Switch it off (`swapoff -a`), unless it is encrypted.")


def _removes_ipc(machine: Path) -> bool:
    """Whether systemd's logind removes what a person leaves in shared memory, as it does unless it is told not to."""
    if not (machine / "run/systemd/system").is_dir():
        return False
    folders = [machine / place / "systemd/logind.conf.d" for place in ("usr/lib", "run", "etc")]
    by_name = {path.name: path for folder in folders for path in folder.glob("*.conf")}  # later folders win
    settings = [machine / "etc/systemd/logind.conf", *(by_name[name] for name in sorted(by_name))]
    said = ""
    for path in settings:
        with contextlib.suppress(OSError):
            said = (REMOVE_IPC.findall(path.read_text()) or [said])[-1]
    return said.lower() not in {"no", "n", "false", "f", "off", "0"}


def _audit(settings: Settings, layout: Layout) -> Iterator[Finding]:
    """OpenBao writes down who reads what. Nothing is said where it does not answer: that is said of it as a part."""
    for part in parts_of(settings, layout):
        if not isinstance(part, OpenBao):
            continue
        try:
            well = part.audits()
        except (NotReady, BranchlineError):
            return
        if well:
            yield Finding("audit", True, f"OpenBao writes down who reads config, in {part.audit}")
        else:
            text = "OpenBao does not write down who reads config: its audit device is missing"
            hint = f"Its configuration declares one that writes {part.audit}: restart the platform (`stop`, `up`)."
            yield Finding("audit", False, text, hint)


def _register(settings: Settings, layout: Layout) -> Iterator[Finding]:
    for state in register_state.look(Endpoints(settings, layout).platform_database, settings.seal_every):
        yield Finding("register", not state.hint, state.text, state.hint)


def _ports(settings: Settings, layout: Layout) -> Iterator[Finding]:
    taken = False
    for part, port, who in ports.taken(parts_of(settings, layout), Ledger(layout.run)):
        taken = True
        yield Finding("ports", False, f"port {port} of {part.name} is taken by {who}", control.PORT_HINT)
    if not taken:
        yield Finding("ports", True, "none is taken by anybody else")


def _gateway(settings: Settings, layout: Layout) -> Finding:
    if settings.nonprod_database_url and settings.production_database_url:
        return Finding("gateway", True, "not needed: databases are external")
    with socket.socket() as probe:
        try:
            probe.bind((str(layout.gateway), 0))
        except OSError:
            return Finding(
                "gateway",
                False,
                f"{layout.gateway} is no address of this machine: containers reach no database",
                f"The network {layout.instance} of Docker provides it; `branchline up` makes it.",
            )
    return Finding("gateway", True, f"{layout.gateway} is where containers reach their databases")


def _disks(layout: Layout) -> Iterator[Finding]:
    seen = set()
    for what, path in (("home", layout.home), ("Docker's data", Path("/var/lib/docker"))):
        if not path.exists() or path.stat().st_dev in seen:
            continue
        seen.add(path.stat().st_dev)
        usage = shutil.disk_usage(path)
        files = os.statvfs(path)
        free = f"{usage.free / 1e9:.1f} GB free for the {what}"
        if usage.free < LEAST_FREE_BYTES or usage.free < usage.total * LEAST_FREE_SHARE:
            yield Finding(
                "disk", False, free, f"Make room in {path}: databases and the config store stop on a full disk."
            )
        elif files.f_files and files.f_favail < files.f_files * LEAST_FREE_SHARE:
            yield Finding("disk", False, f"hardly any inodes are free for the {what}", f"Remove small files in {path}.")
        else:
            yield Finding("disk", True, free)


def _clock(layout: Layout) -> Finding:
    """Tokens for the config store live for seconds: a clock that was set back makes them invalid."""
    ledger = Ledger(layout.run)
    entries = [*ledger.entries(), *filter(None, [ledger.read(SUPERVISOR)])]
    ahead = max((entry.since for entry in entries), default=0.0) - time.time()
    if ahead > 5:
        return Finding("clock", False, f"it was set back by {ahead:.0f} s or more", "Restart the platform; run NTP.")
    return Finding("clock", True, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
