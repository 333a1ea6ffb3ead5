"""A process that switches as a runner would, as it is told on standard input; with `killed_at` it dies on its way."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from branchline.adapters.caddy import CaddyProxy
from branchline.domain.errors import BranchlineError
from branchline.layout import Layout
from branchline.ports import Route
from branchline.settings import Settings
from tests.contract.proxy_worlds import new_environment

# Everything that changes a file system and that Python tells its audit hooks about.
CHANGES = {"open", "os.mkdir", "os.symlink", "os.rename", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock"}


def switch(proxy: CaddyProxy, order: dict[str, Any]) -> str:
    """Carry out an order and say what came of it."""
    routes = [Route(prefix, (target,)) for prefix, target in order["routes"].items()]
    try:
        proxy.switch(new_environment(order["project"]), order["hostnames"], routes)
    except BranchlineError as error:
        return error.code
    return "done"


def switch_and_die(proxy: CaddyProxy, order: dict[str, Any]) -> str:
    """The same in a process that is killed at its n-th change."""
    child = os.fork()
    if child == 0:
        changes = 0

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal changes
            changes += event in CHANGES
            if changes == order["killed_at"]:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        os._exit(0 if switch(proxy, order) == "done" else 1)
    status = os.waitpid(child, 0)[1]
    return {0: "done", signal.SIGKILL: "killed"}.get(status, f"status {status}")


def main() -> None:
    os.umask(0o077)
    home = Path(sys.argv[1])
    proxy = CaddyProxy(Layout.load(home), Settings(home=home))
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(switch_and_die(proxy, order) if "killed_at" in order else switch(proxy, order), flush=True)


if __name__ == "__main__":
    main()
