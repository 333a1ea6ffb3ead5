"""A supervisor of the servers alone, as a process that tests can kill: python -m tests.integration.supervised HOME."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from branchline.domain.errors import BranchlineError
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import first_start, plan
from branchline.stack.supervisor import Supervisor


def main(home: Path) -> int:
    layout = Layout.load(home)
    parts = plan.servers(Settings(home=home), layout, first_start.account())
    supervisor = Supervisor(layout, parts, lambda part, text: print(f"{part}: {text}", flush=True))
    signal.signal(signal.SIGTERM, lambda *_: supervisor.end())
    try:
        supervisor.run()
    except BranchlineError as error:
        print(error.code, error.sentence, flush=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
