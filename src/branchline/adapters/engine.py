"""The durable engine: DBOS carries each deployment's story over crashes, on the platform's own PostgreSQL.

Every tier has a schema of its own, so that no runner ever recovers what belongs to the other tier. Our `deployment`
table decides what runs and who carries it; DBOS only remembers how far each story came.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID

from branchline.domain.environment import Tier
from branchline.domain.errors import TakenOver
from branchline.ports import Durable

APPLICATION_VERSION = "deploy-1"
"""Raised only when the order of stages changes: DBOS leaves the stories of another version alone."""

_TAKEN_OVER = 75


def prepare(engine: sa.Engine) -> None:
    """Make or update the engine's tables, for all tiers; to be called before any runner of any tier launches.

    DBOS builds indexes concurrently, which waits for every open transaction of the database. A runner of the other
    tier, once launched, nearly always has one open: making the tables then takes half a minute instead of a second.
    """
    for tier in Tier:
        DBOS.migrate(_url(engine), schema=_schema(tier))


def _url(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def _schema(tier: Tier) -> str:
    return f"dbos_{tier}"


class DbosEngine:
    """Starts stories and takes over those of runners that died. One per process."""

    def __init__(self, engine: sa.Engine, tier: Tier, runner: str, tell: Callable[[int, Durable], None]) -> None:
        config: DBOSConfig = {
            "name": "branchline",
            "system_database_url": _url(engine),
            "system_database_engine": engine,
            "dbos_system_schema": _schema(tier),
            "application_version": APPLICATION_VERSION,
            "executor_id": runner,
            "log_level": "WARNING",
        }
        self._dbos = DBOS(config=config)

        @DBOS.workflow(name="deploy")  # type: ignore[untyped-decorator, unused-ignore]
        def deploy(deployment: int) -> None:
            tell(deployment, _Steps())

        self._deploy = deploy

    def launch(self) -> None:
        """Connect; makes the engine's tables where they are missing."""
        DBOS.launch()

    def start(self, deployment: int) -> None:
        """Begin a deployment's story; a story that began before is not begun twice."""
        with SetWorkflowID(f"deployment-{deployment}"):
            DBOS.start_workflow(self._deploy, deployment)

    def take_over(self, runner: str) -> None:
        """Go on with every story of a runner that died."""
        # A private call: the public way restarts only stories of the same executor id. Hence the pinned version.
        DBOS._recover_pending_workflows([runner])

    def knows(self, deployment: int) -> bool:
        """Whether the deployment's story ever began."""
        return DBOS.get_workflow_status(f"deployment-{deployment}") is not None

    def teller(self, deployment: int) -> str | None:
        """The runner that told the story last, or tells it now; None where it never began."""
        status = DBOS.get_workflow_status(f"deployment-{deployment}")
        return status.executor_id if status is not None else None

    def ended(self, deployment: int) -> bool:
        """Whether the engine is through with the deployment's story, however it ended."""
        status = DBOS.get_workflow_status(f"deployment-{deployment}")
        return status is not None and status.status not in {"PENDING", "ENQUEUED", "DELAYED"}

    def stop(self, seconds: int) -> None:
        """Wait for running stories as long as this, then let go; another runner goes on with the rest."""
        DBOS.destroy(workflow_completion_timeout_sec=seconds)


class _Steps:
    """Port `Durable`: steps of the workflow that runs in this thread."""

    def step(self, name: str, function: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Run the function and remember its result; a resumed story gets what was remembered."""

        def guarded() -> dict[str, Any]:
            try:
                return dict(function())
            except TakenOver as error:
                # Returning, or raising into the engine, would write over the other runner's record of this story.
                print(f"{error.sentence} This runner starts anew.", file=sys.stderr, flush=True)
                os._exit(_TAKEN_OVER)

        return DBOS.run_step({"name": name}, guarded)
