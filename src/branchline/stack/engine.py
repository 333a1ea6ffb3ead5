"""The Docker engine before there is a platform: python -m branchline.stack.engine start|stop.

`make setup` needs an engine to make images with, and `make stop` ends what it started. A platform that is started in
the same home meanwhile takes the engine over.
"""

from __future__ import annotations

import sys

from branchline.domain.errors import BranchlineError
from branchline.settings import default_home
from branchline.stack import files
from branchline.stack.docker import Engine
from branchline.stack.ledger import Entry, Ledger, State
from branchline.stack.part import Running
from branchline.stack.process import Process


def start() -> str:
    """Make sure that an engine answers; say what was done about it, in words."""
    engine = Engine()
    if engine.answers:
        return ""
    home = default_home()
    for folder in (home, home / "log", home / "run"):
        files.folder(folder)
    files.folder(home / "run" / "parts", mode=0o700)
    running = Running(engine, home / "log" / "docker.log").start()
    if running.process:
        entry = Entry(engine.name, State.UP, identity=running.process.identity)
        Ledger(home / "run").write(entry)
    return f"started a Docker engine, since none answered; its log is {home / 'log' / 'docker.log'}"


def stop() -> str:
    """Stop the engine that `start` started, unless containers run on it; say what was done."""
    engine = Engine()
    ledger = Ledger(default_home() / "run")
    entry = ledger.read(engine.name)
    if entry is None or entry.identity is None or not entry.alive:
        return ""
    if why := engine.occupied():
        return f"the Docker engine that we started is left running: {why}"
    Process(entry.identity).stop(engine.stop_signal, engine.stop_limit)
    ledger.forget(engine.name)
    return "stopped the Docker engine that we had started"


def main() -> int:
    """Do what the one argument says."""
    try:
        said = {"start": start, "stop": stop}[sys.argv[1]]()
    except BranchlineError as error:
        sys.stderr.write(f"{error.sentence} {error.hint}\n")
        return error.exit_status
    if said:
        sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
