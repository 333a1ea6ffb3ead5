"""The config of an environment. Production's can be written, never read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from branchline.server.api import BIGGEST_ID, EnvironmentName, ProjectName, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire import ConfigChange, ConfigKeys, ConfigValue, ConfigVersion, NewConfigValue

api = router("/projects/{project}/environments/{environment}/config", "config")

Key = Annotated[str, Path(max_length=1000, description="Name of the environment variable.")]
ExpectedVersion = Annotated[
    int | None, Query(ge=0, le=BIGGEST_ID, description="Refuse (409) where the config has another version by now.")
]


@api.get("", operation_id="config.keys", summary="Which keys are set, without their values")
def keys(actor: CurrentActor, platform: Operations, project: ProjectName, environment: EnvironmentName) -> ConfigKeys:
    return platform.config.keys(actor, project, environment)


@api.patch("", operation_id="config.change", summary="Set and unset several keys, all or nothing")
def change(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    change: ConfigChange,
) -> ConfigVersion:
    return platform.config.change(actor, project, environment, change.changes, change.expected_version)


@api.get("/{key}", operation_id="config.get", summary="One value; refused for production")
def get(
    actor: CurrentActor, platform: Operations, project: ProjectName, environment: EnvironmentName, key: Key
) -> ConfigValue:
    return platform.config.get(actor, project, environment, key)


@api.put("/{key}", operation_id="config.change.set", summary="Set one key")
def put(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    key: Key,
    new: NewConfigValue,
) -> ConfigVersion:
    return platform.config.change(actor, project, environment, {key: new.value}, new.expected_version)


@api.delete("/{key}", operation_id="config.change.unset", summary="Unset one key")
def delete(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    key: Key,
    expected_version: ExpectedVersion = None,
) -> ConfigVersion:
    return platform.config.change(actor, project, environment, {key: None}, expected_version)
