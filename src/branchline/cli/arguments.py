"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from branchline.domain.layers import COMMON
from branchline.domain.names import check_name


def _project(name: str) -> str:
    """Here and not by the server alone: a `/` within a name would be taken for two parts of a path."""
    return check_name(name, "name of a project")


def _environment(name: str) -> str:
    return name if name == COMMON else check_name(name, "name of an environment")


Json = Annotated[bool, typer.Option("--json", help="Print JSON, exactly as the API gives it.")]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.", callback=_project)]
EnvironmentName = Annotated[str, typer.Argument(metavar="ENV", help="Name of the environment.", callback=_environment)]
LayerName = Annotated[
    str,
    typer.Argument(
        metavar="ENV",
        help=f"Name of the environment; {COMMON} is the layer of the whole project.",
        callback=_environment,
    ),
]
DeploymentNumber = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the deployment.")]
