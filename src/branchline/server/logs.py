"""The server's own log: JSON, a line each, to standard error; what libraries say goes the same way."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

QUIET = ("uvicorn.error", "uvicorn.access", "httpx", "httpcore", "urllib3", "hvac", "alembic")
"""Libraries that tell of each request, with its address, where they are let: only their warnings are wanted."""


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all logging of this process to a stream (standard error) as JSON lines.

    Tracebacks come without local variables: these may hold secrets.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    # a log that cannot be written (a full disk, a closed pipe) must not bring requests down
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        chatty = logging.getLogger(name)
        chatty.handlers[:] = []
        chatty.propagate = True
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
