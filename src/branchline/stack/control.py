"""What an operator asks of the stack: up, in the foreground or detached, and stop."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

from branchline import memory
from branchline.domain.errors import Conflict, PlatformBroke, TimedOut
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import docker, first_start, plan, ports
from branchline.stack.environments import Environments
from branchline.stack.inspection import look
from branchline.stack.keeper import Say
from branchline.stack.ledger import SUPERVISOR, Ledger
from branchline.stack.part import NotReady, Part, last_lines
from branchline.stack.process import wait_until_gone
from branchline.stack.programs import Server, fork_supervisor
from branchline.stack.supervisor import Supervisor, hold

UP_LIMIT = 120.0
STOP_LIMIT = 240.0
"""Longer than all the parts' own limits one after the other can be."""

PORT_HINT = "Stop that program, or choose another port: by a setting, or in stack.json while the platform is stopped."


def prepare(settings: Settings) -> tuple[Layout, list[Part]]:
    """Make the home ready and say which parts there are.

    Raises PlatformBroke where this machine lacks what one of them needs, Conflict (`port_taken`).
    """
    layout = first_start.establish(settings.home, docker.networks(settings.docker_host))
    parts = all_parts(settings, layout)
    for part in parts:
        part.command()
    for part, port, who in ports.taken(parts, Ledger(layout.run)):
        raise Conflict(f"Port {port} of {part.name} is taken by {who}.", code="port_taken", hint=PORT_HINT)
    return layout, parts


def up(settings: Settings, say: Say, when_up: Callable[[Layout], None] = lambda _: None) -> None:
    """Run the platform in this process until SIGTERM, SIGINT or SIGHUP; `when_up` is called once, when all is ready.

    Raises Conflict (`already_running`), and PlatformBroke or BadInput where it cannot be started at all.
    """
    layout, parts = prepare(settings)
    supervise(layout, parts, say, lambda: when_up(layout))


def up_detached(settings: Settings, say: Say, limit: float = UP_LIMIT) -> Layout:
    """Start the platform in the background and return when all of it is ready.

    Raises what `up` raises, and TimedOut (`not_up_in_time`) with the parts that are not ready and what they said last;
    the platform goes on trying then.
    """
    layout, _ = prepare(settings)
    with hold(layout):
        pass  # says who runs, before anything is started
    supervisor = fork_supervisor(layout, layout.log / "supervisor.log")
    ledger = Ledger(layout.run)
    said: set[str] = set()
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if supervisor.wait(0):
            raise PlatformBroke(
                "The supervisor ended while it was starting.",
                code="supervisor_ended",
                hint="\n".join(last_lines(layout.log / "supervisor.log", 5)),
            )
        whole = ledger.read(SUPERVISOR)
        if whole and whole.identity and whole.identity == supervisor.identity:
            for entry in ledger.entries():
                if entry.up and entry.since >= whole.since - whole.took and entry.part not in said:
                    said.add(entry.part)
                    say(entry.part, f"{entry.state} ({entry.took:.2f} s)")
            if whole.up:
                return layout
        time.sleep(0.03)
    raise _not_up(settings, limit)


def supervise(layout: Layout, parts: list[Part], say: Say, when_up: Callable[[], None] = lambda: None) -> None:
    """Be the supervisor of these parts until SIGTERM, SIGINT or SIGHUP; all that is said is written down as well."""

    def tell() -> None:
        with contextlib.suppress(OSError):
            when_up()

    gc.enable()  # the command line does without; a process that lives for months must not
    memory.few_heaps()
    supervisor = Supervisor(layout, parts, _written_down(layout, say), tell)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.end())
    supervisor.run()


def stop(settings: Settings, say: Say) -> bool:
    """Stop the platform, by its supervisor or, where that is dead, by ourselves; return whether anything ran.

    Containers of environments stay. Raises PlatformBroke `not_set_up` where there is no platform, TimedOut
    (`not_stopped_in_time`).
    """
    layout = Layout.load(settings.home)
    ran = _dismiss_supervisor(layout, signal.SIGTERM) or any(entry.alive for entry in Ledger(layout.run).entries())
    Supervisor(layout, all_parts(settings, layout), say).clear()
    return ran


def stop_with_environments(settings: Settings, say: Say, then: Callable[[Layout], None] = lambda _: None) -> None:
    """Stop the platform and the containers of all its environments, do `then`, and stop an engine that we started.

    The next `up` starts these containers again. Raises what `stop` raises.
    """
    layout = Layout.load(settings.home)
    # The supervisor would stop the engine before we are done with it; its parts outlive it.
    _dismiss_supervisor(layout, signal.SIGKILL)
    parts = all_parts(settings, layout)
    Supervisor(layout, [part for part in parts if not isinstance(part, docker.Engine)], lambda *_: None).clear()
    with contextlib.suppress(NotReady):  # no engine, hence no containers
        if stopped := Environments(layout, settings.docker_host).stop():
            say("environments", f"{stopped} container{'s' if stopped > 1 else ''} stopped")
    then(layout)
    Supervisor(layout, parts, say).clear()


def all_parts(settings: Settings, layout: Layout) -> list[Part]:
    """The whole stack of this home."""
    return [
        *plan.servers(settings, layout, first_start.account()),
        *plan.programs(settings, layout, first_start.own_server_account()),
    ]


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
        # Neither a full disk nor a terminal that was closed may end the watch over the parts.
        with contextlib.suppress(OSError), path.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {part}: {text}\n")
        with contextlib.suppress(OSError):
            say(part, text)

    return both


def _not_up(settings: Settings, limit: float) -> TimedOut:
    seen = look(settings)
    late = [part for part in seen.parts if not part.well]
    # What waits for another part is not the cause.
    causes = [part for part in late if part.pid or not part.waits] or late
    words = [
        line
        for part in causes
        for line in [f"{part.name}: {part.reason}", *last_lines(seen.layout.log / f"{part.name}.log", 5)]
    ]
    return TimedOut(
        f"Not up after {limit:.0f} s: {', '.join(part.name for part in causes) or SUPERVISOR}.",
        code="not_up_in_time",
        hint="\n".join([*words, "It goes on trying: see `branchline status`."]),
    )
