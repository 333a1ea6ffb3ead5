"""The supervisor in the background: `python -m branchline.stack.supervise`, run by `branchline up --detach`.

Ends with status 0 when it was asked to stop; else its last line in the log says why.
"""

from __future__ import annotations

import sys

from branchline.domain.errors import BranchlineError
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import control


def main() -> int:
    """Run by the settings of this home, which the command has looked through, until SIGTERM."""
    settings = Settings()
    try:
        layout = Layout.load(settings.home)
        control.supervise(layout, control.all_parts(settings, layout), lambda *_: None)
    except BranchlineError as error:
        sys.stderr.write(f"{error.code}: {error.sentence} {error.hint}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
