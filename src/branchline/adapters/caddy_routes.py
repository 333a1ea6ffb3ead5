"""The routes folder: which hostnames and paths go to which targets, as directory entries that Caddy looks up.

    hosts/HOSTNAME       → ../environments/KEY      who has the hostname
    fences/KEY                                      the last deployment, and attempt, that changed the environment
    environments/KEY/
        live             → g-NUMBER                 the switch: renaming this link is all there is to it
        g-NUMBER/                                   a generation, complete before it goes live, never changed after
            routes.json                             the same for people and for `read`
            id/g-NUMBER                             the generation says its own name, …
            hosts/HOSTNAME → ../id                  … by each of its hostnames
            tree/api/@10.0.0.1:80,10.0.0.2:80       the targets of the prefix /api

Where `/` is the only prefix, its targets stand in `id`, instead of the name: one thing less to look up.

A hostname answers while its environment's live generation names it; a link in `hosts` alone means nothing. So all of an
environment's hostnames, prefixes and targets change in the one move, and a process that dies half-way changed nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath

from branchline.domain.deployment import Fence
from branchline.domain.errors import Conflict, PlatformBroke, TakenOver, TimedOut

LOCK_SECONDS = 10.0
"""How long to wait for others who switch: each needs milliseconds."""

KEEP_SECONDS = 30.0
"""How long a replaced generation stays: much longer than a request needs from reading `live` to reading the targets."""


class RoutesFolder:
    """Changes the folder, one process at a time. Caddy's account reads it and never writes."""

    def __init__(self, folder: Path, keep: float = KEEP_SECONDS, patience: float = LOCK_SECONDS) -> None:
        self._keep = keep
        self._patience = patience
        self._folder = folder
        self._hosts = folder / "hosts"
        self._environments = folder / "environments"
        self._fences = folder / "fences"

    def put(
        self, key: str, hostnames: Sequence[str], routes: Mapping[str, Sequence[str]], fence: Fence | None = None
    ) -> None:
        """Send the hostnames to the targets of each prefix.

        Raises Conflict `hostname_taken`, or TakenOver where somebody later has changed them: nothing changed then.
        """
        text = _description(hostnames, routes)
        with self._alone():
            self._refuse_taken(key, hostnames)
            self._pass(key, fence)
            home = self._environments / key
            _open_folder(home)
            live = home / "live"
            before = _link(live)
            fresh = None
            if _text(live / "routes.json") != text or not _complete(live, hostnames, routes):
                fresh = _write_generation(home, hostnames, routes, text)
            for hostname in hostnames:
                _point(self._hosts / hostname, f"../environments/{key}")
            if fresh is not None:
                _point(live, fresh)
            over = _over(home, self._keep)
            self._release(key, {*over, home / before} if before else over, hostnames)
            for generation in over:
                shutil.rmtree(generation)

    def remove(self, key: str, fence: Fence | None = None) -> None:
        """Stop answering for an environment and forget it; raises TakenOver as `put` does."""
        with self._alone():
            self._pass(key, fence)
            home = self._environments / key
            if home.is_dir():
                (home / "live").unlink(missing_ok=True)
                _sync(home)
                self._release(key, home.glob("g-*"), ())
                shutil.rmtree(home)

    def read(self, key: str) -> dict[str, list[str]]:
        """The targets of each prefix as they are live now; empty where there are none."""
        text = _text(self._environments / key / "live" / "routes.json")
        routes: dict[str, list[str]] = json.loads(text)["routes"] if text else {}
        return routes

    def whole(self, key: str, hostnames: Sequence[str], routes: Mapping[str, Sequence[str]]) -> bool:
        """Whether the hostnames lead to these targets, and every entry that Caddy looks up for that is there."""
        live = self._environments / key / "live"
        return (
            _text(live / "routes.json") == _description(hostnames, routes)
            and _complete(live, hostnames, routes)
            and all(_link(self._hosts / hostname) == f"../environments/{key}" for hostname in hostnames)
        )

    def _pass(self, key: str, fence: Fence | None) -> None:
        """Refuse whoever comes late. The folder's lock makes it one move with the change itself."""
        if fence is None:
            return
        file = self._fences / key
        last = Fence(*map(int, (_text(file) or "0 0").split()))
        if fence < last:
            raise TakenOver(f"Deployment {last.deployment} (attempt {last.attempt}) has changed the routes since.")
        if fence > last:
            fresh = file.with_name(".new")
            fresh.write_text(f"{fence.deployment} {fence.attempt}\n")
            fresh.replace(file)  # needs no fsync: after a power cut there is nobody left who could come late

    def _refuse_taken(self, key: str, hostnames: Sequence[str]) -> None:
        for hostname in hostnames:
            owner = _link(self._hosts / hostname).rpartition("/")[2]
            if owner not in {"", key} and (self._hosts / hostname / "live" / "hosts" / hostname).exists():
                raise Conflict(
                    f"The hostname {hostname} belongs to {owner}.",
                    code="hostname_taken",
                    hint=f"Take it away from {owner} first (deploy that without it), or choose another one.",
                )

    def _release(self, key: str, generations: Iterable[Path], keep: Sequence[str]) -> None:
        """Remove the environment's links for hostnames that it had in these generations and that are not kept."""
        for hostname in {name for generation in generations for name in _names(generation / "hosts")}.difference(keep):
            link = self._hosts / hostname
            if _link(link) == f"../environments/{key}":
                link.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock: the kernel lets go of it when its process dies."""
        try:
            for folder in (self._folder, self._hosts, self._environments, self._fences):
                _open_folder(folder)
            with (self._folder / "lock").open("w") as lock:
                os.fchmod(lock.fileno(), 0o600)  # whoever can open it could hold it
                _wait_for(lock.fileno(), self._patience)
                yield
        except OSError as error:
            raise PlatformBroke(
                f"The proxy's routes cannot be written: {error.strerror or error}.",
                code="routes_unwritable",
                hint=f"Look at the rights and the free space of {self._folder}.",
            ) from error


def _write_generation(home: Path, hostnames: Sequence[str], routes: Mapping[str, Sequence[str]], text: str) -> str:
    """Write a generation, out of anybody's sight, and return its name."""
    # Later than what is live, even after the clock was set back: what has a higher number never went live.
    name = f"g-{max(time.time_ns(), _number(home / _link(home / 'live')) + 1)}"
    folder = home / name
    for part in ("id", "hosts", "tree"):
        (folder / part).mkdir(parents=True)
    if list(routes) == ["/"]:
        (folder / "id" / _leaf(routes["/"])).touch()
    else:
        (folder / "id" / name).touch()
    for hostname in hostnames:
        (folder / "hosts" / hostname).symlink_to("../id")
    for prefix, targets in routes.items():
        leaf = folder / "tree" / PurePosixPath(prefix).relative_to("/")
        leaf.mkdir(parents=True, exist_ok=True)
        (leaf / _leaf(targets)).touch()
    description = folder / "routes.json"
    description.touch()
    for path, _, names in os.walk(folder, topdown=False):
        for name_of_file in names:
            (Path(path) / name_of_file).chmod(0o644)
        Path(path).chmod(0o755)
    # Last of all, and the only sync: a journal keeps the order, so all entries are on the disk by then. Where a file
    # system has none, a power cut may leave a generation damaged: the chore that mends environments sees it.
    with description.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return name


def _description(hostnames: Sequence[str], routes: Mapping[str, Sequence[str]]) -> str:
    return json.dumps({"hostnames": sorted(hostnames), "routes": routes}, indent=2, sort_keys=True) + "\n"


def _complete(generation: Path, hostnames: Sequence[str], routes: Mapping[str, Sequence[str]]) -> bool:
    """Whether nobody damaged a generation since it was written."""
    said = _leaf(routes["/"]) if list(routes) == ["/"] else _link(generation)
    wanted = [Path("id", said), *(Path("hosts", hostname, said) for hostname in hostnames)]
    for prefix, targets in routes.items():
        wanted.append(Path("tree", PurePosixPath(prefix).relative_to("/"), _leaf(targets)))
    return all((generation / path).exists() for path in wanted)


def _leaf(targets: Sequence[str]) -> str:
    return "@" + ",".join(targets)


def _over(home: Path, keep: float) -> set[Path]:
    """Generations that were replaced longer ago than this, and those that never went live since a process died."""
    live = home / _link(home / "live")
    generations = sorted((home / name for name in _names(home) if name.startswith("g-")), key=_number)
    replaced = {one for one, next_one in pairwise(generations) if time.time_ns() - _number(next_one) > keep * 1e9}
    unborn = {one for one in generations if _number(one) > _number(live)}
    return (replaced | unborn) - {live}


def _number(generation: Path) -> int:
    return int(generation.name.removeprefix("g-")) if generation.name.startswith("g-") else 0


def _point(link: Path, target: str) -> None:
    """Make the link lead to the target in one move that outlasts a power cut."""
    if _link(link) == target:
        return
    fresh = link.with_name(".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
    _sync(link.parent)


def _link(link: Path) -> str:
    """Where the link leads to; empty where there is none."""
    return str(link.readlink()) if link.is_symlink() else ""


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _open_folder(folder: Path) -> None:
    """Make sure of the folder, and that Caddy's account can read it whatever our umask is."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)
    if stat.S_IMODE(folder.stat().st_mode) != 0o755:
        folder.chmod(0o755)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wait_for(lock: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimedOut(
                    "Another process holds the proxy's routes.",
                    code="routes_unreachable",
                    hint="A change takes milliseconds: look for a runner that hangs.",
                ) from None
            time.sleep(0.002)
        else:
            return
