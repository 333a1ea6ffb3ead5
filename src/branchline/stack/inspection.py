"""How the stack is: every part in one look, whether or not its supervisor lives."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from branchline.domain.errors import BadInput
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import first_start, plan
from branchline.stack.ledger import SUPERVISOR, Entry, Ledger, State
from branchline.stack.part import NotReady, Part
from branchline.stack.process import User


@dataclass(frozen=True)
class PartStatus:
    """One part. `memory` is its share in bytes, None without a process; `waits` says that another part holds it up."""

    name: str
    state: State
    endpoint: str
    pid: int | None = None
    since: datetime | None = None
    memory: int | None = None
    restarts: int = 0
    reason: str = ""
    waits: bool = False

    @property
    def well(self) -> bool:
        """Whether it does its work."""
        return self.state in {State.UP, State.EXTERNAL}


@dataclass(frozen=True)
class PlatformStatus:
    """The platform of one home. `supervisor` is its process, None where nobody watches the parts."""

    layout: Layout
    supervisor: int | None
    since: datetime | None
    parts: tuple[PartStatus, ...]

    @property
    def well(self) -> bool:
        """Whether everything does its work and is watched."""
        return self.supervisor is not None and all(part.well for part in self.parts)


def look(settings: Settings) -> PlatformStatus:
    """Ask every part how it is; takes about as long as the slowest answer, at most a few seconds.

    Raises PlatformBroke (`not_set_up`) where there is no platform.
    """
    layout = Layout.load(settings.home)
    ledger = Ledger(layout.run)
    keeper = ledger.read(SUPERVISOR)
    alive = keeper is not None and keeper.alive
    parts = parts_of(settings, layout)
    return PlatformStatus(
        layout,
        keeper.identity.pid if keeper and keeper.identity and alive else None,
        _moment(keeper.since) if keeper and alive else None,
        tuple(_statuses(parts, ledger)),
    )


def parts_of(settings: Settings, layout: Layout) -> list[Part]:
    """All the parts, to be looked at; what this machine lacks to start them does not matter here."""
    user: User | None = None
    own: User | None = None
    with contextlib.suppress(BadInput):  # the doctor says so by itself
        user = first_start.account()
        own = first_start.own_server_account()
    return [*plan.servers(settings, layout, user), *plan.programs(settings, layout, own)]


def _statuses(parts: Sequence[Part], ledger: Ledger) -> list[PartStatus]:
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(lambda part: _status(part, ledger.read(part.name)), parts))


def _status(part: Part, entry: Entry | None) -> PartStatus:
    state, reason = _state(part, entry)
    alive = entry is not None and entry.alive
    return PartStatus(
        part.name,
        state,
        part.endpoint,
        pid=entry.identity.pid if entry and entry.identity and alive else None,
        since=_moment(entry.since) if entry and state is not State.DOWN else None,
        memory=_memory(entry.identity.pid, with_children=part.owns_children)
        if entry and entry.identity and alive
        else None,
        restarts=entry.restarts if entry else 0,
        reason=reason,
        waits=entry is not None and entry.state is State.WAITING,
    )


def _state(part: Part, entry: Entry | None) -> tuple[State, str]:
    if not part.external and part.has_process and entry is None:
        return State.DOWN, "it is not running"
    if entry and entry.state is State.WAITING:
        return State.STARTING, f"it waits for {', '.join(part.needs)}"
    if entry and entry.identity and not entry.alive:
        return State.DOWN, f"its process {entry.identity.pid} is gone"
    try:
        part.check()
    except NotReady as answer:
        starting = entry is not None and entry.state in {State.WAITING, State.STARTING}
        return (State.STARTING if starting else State.DOWN), str(answer)
    return (State.EXTERNAL if part.external else State.UP), ""


def _memory(pid: int, *, with_children: bool) -> int | None:
    try:
        leader = psutil.Process(pid)
        processes = [leader, *(leader.children(recursive=True) if with_children else [])]
    except psutil.Error:
        return None
    return sum(map(_own_memory, processes))


def _own_memory(process: psutil.Process) -> int:
    """Its share of the memory; where we may not see that, all that it touches; nothing once it is gone."""
    with contextlib.suppress(psutil.Error, AttributeError):
        return int(process.memory_full_info().pss)
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
