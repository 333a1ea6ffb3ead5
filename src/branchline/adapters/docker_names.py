"""What we call things in Docker, and what we write on them so that we find them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from branchline.adapters.docker_engine import DockerEngine
from branchline.domain.environment import Environment
from branchline.ports import SECRETS, Instance

INSTANCE = "branchline.instance"
PROJECT = "branchline.project"
ENVIRONMENT = "branchline.environment"
DEPLOYMENT = "branchline.deployment"
KIND = "branchline.kind"
SERVICE = "branchline.service"
REPLICA = "branchline.replica"
PORT = "branchline.port"
ADDRESS = "branchline.address"

KIND_SERVICE = "service"
KIND_RUN = "run"


def network_name(instance: str, environment: Environment) -> str:
    """The name of an environment's network."""
    return f"{instance}-{environment.key}"


def service_name(instance: str, environment: Environment, deployment: int, service: str, replica: int) -> str:
    """The name of the container of one replica."""
    return f"{instance}-{environment.key}-d{deployment}-{service}-{replica}"


def run_name(instance: str, environment: Environment, deployment: int, name: str) -> str:
    """The name of the container of a one-off command."""
    return f"{instance}-{environment.key}-d{deployment}-run-{name}"


def labels_of_environment(instance: str, environment: Environment) -> dict[str, str]:
    """Labels of everything that belongs to an environment. Nothing secret: everybody who may use Docker sees them."""
    return {INSTANCE: instance, PROJECT: environment.project, ENVIRONMENT: environment.name}


def labels_of_service(instance: Instance) -> dict[str, str]:
    """Labels that say which replica a container is."""
    return {
        KIND: KIND_SERVICE,
        DEPLOYMENT: str(instance.deployment),
        SERVICE: instance.service,
        REPLICA: str(instance.replica),
        PORT: str(instance.port or ""),
        ADDRESS: instance.address,
    }


def labels_of_run(deployment: int, name: str) -> dict[str, str]:
    """Labels of a one-off command's container."""
    return {KIND: KIND_RUN, DEPLOYMENT: str(deployment), SERVICE: name}


def instance_of(container: Mapping[str, Any]) -> Instance:
    """The instance that a container from Docker's list is, by its labels."""
    labels = container["Labels"]
    return Instance(
        name=container["Names"][0].lstrip("/"),
        service=labels[SERVICE],
        replica=int(labels[REPLICA]),
        deployment=int(labels[DEPLOYMENT]),
        address=labels[ADDRESS],
        port=int(labels[PORT]) if labels[PORT] else None,
    )


def secrets_folder(container: Mapping[str, Any]) -> Path | None:
    """The folder on the host that a container finds at the place of secrets; None where it is given none."""
    for mount in container["Mounts"]:
        if mount["Destination"] == SECRETS and mount["Type"] == "bind":
            return Path(mount["Source"])
    return None


def find(
    engine: DockerEngine,
    instance: str,
    environment: Environment,
    deployment: int | None = None,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """The containers of an environment as Docker lists them, stopped ones included."""
    labels = labels_of_environment(instance, environment)
    if deployment is not None:
        labels[DEPLOYMENT] = str(deployment)
    if kind is not None:
        labels[KIND] = kind
    wanted = [f"{key}={value}" for key, value in labels.items()]
    found: list[dict[str, Any]] = engine.client.containers(all=True, filters={"label": wanted})
    return [one for one in found if one["Names"]]  # without a name it is as good as removed
