"""The supervisor as a process of its own, as `branchline up --detach` starts it: python -m branchline.stack."""

from __future__ import annotations

import sys

from branchline.domain.errors import BranchlineError
from branchline.settings import Settings
from branchline.stack.control import up


def main() -> int:
    """Run until SIGTERM; what happens goes to the supervisor's log."""
    try:
        up(Settings(), lambda _part, _text: None)
    except BranchlineError as error:
        sys.stderr.write(f"{error.code}: {error.sentence} {error.hint}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
