"""What an operator asks of the stack: up, in the foreground or detached, and stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from branchline.domain.errors import PlatformBroke, TimedOut
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import docker, first_start, plan
from branchline.stack.environments import Environments
from branchline.stack.keeper import Say
from branchline.stack.ledger import SUPERVISOR, Entry, Ledger, State
from branchline.stack.part import NotReady, Part, last_lines
from branchline.stack.process import wait_until_gone
from branchline.stack.programs import Server
from branchline.stack.supervisor import Supervisor, hold

UP_LIMIT = 120.0
STOP_LIMIT = 240.0
"""Longer than all the parts' own limits one after the other can be."""


def prepare(settings: Settings) -> tuple[Layout, list[Part]]:
    """Make the home ready and say which parts there are; raises where this machine lacks what one of them needs."""
    layout = first_start.establish(settings.home, docker.networks(settings.docker_host))
    parts = _all_parts(settings, layout)
    for part in parts:
        part.command()
    return layout, parts


def up(settings: Settings, say: Say, when_up: Callable[[Layout], None] = lambda _: None) -> None:
    """Run the platform in this process until SIGTERM, SIGINT or SIGHUP; `when_up` is called once, when all is ready.

    Raises Conflict (`already_running`), and PlatformBroke or BadInput where it cannot be started at all.
    """
    layout, parts = prepare(settings)
    supervisor = Supervisor(layout, parts, _written_down(layout, say), lambda: when_up(layout))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.end())
    supervisor.run()


def up_detached(settings: Settings, say: Say, limit: float = UP_LIMIT) -> Layout:
    """Start the platform in the background and return when all of it is ready.

    Raises what `up` raises, and TimedOut (`not_up_in_time`) with the part that is not ready and what it said last;
    the platform goes on trying then.
    """
    layout, _ = prepare(settings)
    with hold(layout):
        pass  # says who runs, before anything is started
    with (layout.log / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "branchline.stack"],
            cwd=layout.home,
            env={**os.environ, "BRANCHLINE_HOME": str(layout.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    ledger = Ledger(layout.run)
    said: set[str] = set()
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if child.poll() is not None:
            raise PlatformBroke(
                "The supervisor ended while it was starting.",
                code="supervisor_ended",
                hint="\n".join(last_lines(layout.log / "supervisor.log", 5)),
            )
        supervisor = ledger.read(SUPERVISOR)
        ours = supervisor is not None and supervisor.identity is not None and supervisor.identity.pid == child.pid
        if ours:
            for entry in ledger.entries():
                if entry.state in {State.UP, State.EXTERNAL} and entry.part not in said:
                    said.add(entry.part)
                    say(entry.part, f"{entry.state} ({entry.took:.2f} s)")
        if ours and supervisor is not None and supervisor.state is State.UP:
            child.returncode = 0  # it lives on without us
            return layout
        time.sleep(0.05)
    raise _not_up(layout, ledger.entries(), limit)


def stop(settings: Settings, say: Say) -> bool:
    """Stop the platform, by its supervisor or, where that is dead, by ourselves; return whether anything ran.

    Containers of environments stay. Raises PlatformBroke `not_set_up` where there is no platform, TimedOut
    (`not_stopped_in_time`).
    """
    layout = Layout.load(settings.home)
    ran = _dismiss_supervisor(layout, signal.SIGTERM) or any(entry.alive for entry in Ledger(layout.run).entries())
    Supervisor(layout, _all_parts(settings, layout), say).clear()
    return ran


def stop_with_environments(settings: Settings, say: Say, then: Callable[[Layout], None] = lambda _: None) -> None:
    """Stop the platform and the containers of all its environments, do `then`, and stop an engine that we started.

    The next `up` starts these containers again. Raises what `stop` raises.
    """
    layout = Layout.load(settings.home)
    # The supervisor would stop the engine before we are done with it; its parts outlive it.
    _dismiss_supervisor(layout, signal.SIGKILL)
    parts = _all_parts(settings, layout)
    Supervisor(layout, [part for part in parts if not isinstance(part, docker.Engine)], lambda *_: None).clear()
    with contextlib.suppress(NotReady):  # no engine, hence no containers
        if stopped := Environments(layout, settings.docker_host).stop():
            say("environments", f"{stopped} container{'s' if stopped > 1 else ''} stopped")
    then(layout)
    Supervisor(layout, parts, say).clear()


def _all_parts(settings: Settings, layout: Layout) -> list[Part]:
    return [*plan.servers(settings, layout, first_start.account()), *plan.programs(settings, layout)]


def _dismiss_supervisor(layout: Layout, how: signal.Signals) -> bool:
    supervisor = Ledger(layout.run).read(SUPERVISOR)
    if supervisor is None or supervisor.identity is None or not supervisor.alive:
        return False
    os.kill(supervisor.identity.pid, how)
    if not wait_until_gone(supervisor.identity, STOP_LIMIT):
        raise TimedOut(
            f"The supervisor (process {supervisor.identity.pid}) did not end within {STOP_LIMIT:.0f} s.",
            code="not_stopped_in_time",
            hint=f"See {layout.log / 'supervisor.log'}; `branchline status` shows what still runs.",
        )
    return True


def addresses(settings: Settings, layout: Layout) -> list[tuple[str, str]]:
    """Where people go: the dashboard, environments, and the file with the admin's token."""
    port = settings.public_port or layout.ports.proxy
    return [
        ("Dashboard and API", f"http://{Server(layout, settings).address}"),
        ("Environments", f"http://ENVIRONMENT-PROJECT.{settings.domain}:{port}"),
        ("Admin token", f"in {layout.home / 'admin.token'}"),
    ]


def _written_down(layout: Layout, say: Say) -> Callable[[str, str], None]:
    """Say it, and keep it in the supervisor's log with the time."""
    path = layout.log / "supervisor.log"

    def both(part: str, text: str) -> None:
        with path.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {part}: {text}\n")
        say(part, text)

    return both


def _not_up(layout: Layout, entries: list[Entry], limit: float) -> TimedOut:
    late = [entry for entry in entries if entry.state not in {State.UP, State.EXTERNAL}]
    # What waits for another part is not the cause.
    causes = [entry for entry in late if entry.state is not State.WAITING] or late
    names = ", ".join(entry.part for entry in causes) or SUPERVISOR
    words = [
        line
        for entry in causes
        for line in ([entry.reason] if entry.reason else []) + last_lines(layout.log / f"{entry.part}.log", 5)
    ]
    return TimedOut(
        f"Not up after {limit:.0f} s: {names}.",
        code="not_up_in_time",
        hint="\n".join([*words, "It goes on trying: see `branchline status`."]),
    )
