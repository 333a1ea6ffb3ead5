"""The server's process: `python -m branchline.server.main`.

Prints nothing but log lines. Ends with status 0 when it was asked to stop; with 4, or 2 for wrong settings, when it
cannot run, after a line that says why.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run by the settings of this home, until SIGTERM."""
    # Where structlog finds rich, it loads it for colours that a log of JSON never shows: 7 MB of a small process.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

    import structlog  # noqa: PLC0415 all of it only after the line above
    from pydantic import ValidationError  # noqa: PLC0415

    from branchline.bootstrap.server import server_platform  # noqa: PLC0415
    from branchline.domain.errors import BadInput, BranchlineError  # noqa: PLC0415
    from branchline.layout import Layout  # noqa: PLC0415
    from branchline.server import logs, web  # noqa: PLC0415
    from branchline.server.source import networks  # noqa: PLC0415
    from branchline.settings import Settings  # noqa: PLC0415

    logs.configure()
    log = structlog.get_logger("branchline.server")
    try:
        settings = Settings()
        layout = Layout.load(settings.home)
        listen = settings.server_listen or f"127.0.0.1:{layout.ports.server}"
        trusted = networks(settings.trusted_proxies)
        # before anything else: where the port is taken, nothing has been touched
        listener = web.bind(listen)
        platform = server_platform(settings, lambda chore, why: log.warning("chore undone", chore=chore, reason=why))
        platform.chores.begin()
        web.serve(platform, listener, settings.home, trusted, first_token=layout.first_token)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        log.error("cannot_run", code="bad_settings", sentence=f"The settings are not right: {wrong}.")  # noqa: TRY400
        return BadInput.exit_status
    except BranchlineError as error:
        log.error("cannot_run", code=error.code, sentence=error.sentence, hint=error.hint)  # noqa: TRY400
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
