"""The HTTP API, a module for each resource. A route's operation id names the operation that it calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

BIGGEST_ID = 2**63 - 1

ProjectName = Annotated[str, Path(alias="project", max_length=1000, description="Name of the project.")]
EnvironmentName = Annotated[str, Path(alias="environment", max_length=1000, description="Name of the environment.")]
DeploymentId = Annotated[int, Path(alias="id", ge=1, le=BIGGEST_ID, description="Number of the deployment.")]
Before = Annotated[
    int | None, Query(ge=1, le=BIGGEST_ID, description="Only what is older than this id: the `next` of the last page.")
]
ProjectFilter = Annotated[str | None, Query(max_length=1000, description="Only this project.")]


def router(path: str, tag: str) -> APIRouter:
    """A router below `/api/v1`."""
    return APIRouter(prefix=f"/api/v1{path}", tags=[tag])
