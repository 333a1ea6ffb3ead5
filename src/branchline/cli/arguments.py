"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, exactly as the API gives it.")]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")]
EnvironmentName = Annotated[str, typer.Argument(metavar="ENV", help="Name of the environment.")]
DeploymentNumber = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the deployment.")]
