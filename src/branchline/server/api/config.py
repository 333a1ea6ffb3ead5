"""The config of an environment. Production's can be written, never read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, status

from branchline.server.api import EnvironmentName, ProjectName, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire import DeploymentView
from branchline.wire_config import (
    ConfigApply,
    ConfigChange,
    ConfigDifference,
    ConfigHistory,
    ConfigKeys,
    ConfigValue,
    ConfigValues,
    ConfigVersion,
    ExpectedVersion,
    KeyExplanation,
    NewConfigValue,
)

api = router("/projects/{project}/environments/{environment}/config", "config")

Key = Annotated[str, Path(max_length=1000, description="Name of the environment variable.")]
OneKey = Annotated[str | None, Query(max_length=1000, description="Only this key.")]


@api.get("", operation_id="config.keys", summary="Which keys are set, without their values")
def keys(actor: CurrentActor, platform: Operations, project: ProjectName, environment: EnvironmentName) -> ConfigKeys:
    return platform.config.keys(actor, project, environment)


@api.patch("", operation_id="config.change", summary="Set, hide and take out several keys, all or nothing")
def change(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    change: ConfigChange,
) -> ConfigVersion:
    return platform.config.change(actor, project, environment, change.changes, change.hidden, change.expected_version)


@api.get("/keys/{key}", operation_id="config.get", summary="One value; refused for production")
def get(
    actor: CurrentActor, platform: Operations, project: ProjectName, environment: EnvironmentName, key: Key
) -> ConfigValue:
    return platform.config.get(actor, project, environment, key)


@api.put("/keys/{key}", operation_id="config.change.set", summary="Set one key")
def put(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    key: Key,
    new: NewConfigValue,
) -> ConfigVersion:
    return platform.config.change(actor, project, environment, {key: new.value}, (), new.expected_version)


@api.delete("/keys/{key}", operation_id="config.change.unset", summary="Take one key out")
def delete(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    key: Key,
    expected_version: Annotated[ExpectedVersion, Query()] = None,
) -> ConfigVersion:
    return platform.config.change(actor, project, environment, {key: None}, (), expected_version)


@api.get("/values", operation_id="config.export", summary="All values; refused for production")
def values(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    own: Annotated[bool, Query(description="Only those of its own layer.")] = False,
) -> ConfigValues:
    return platform.config.export(actor, project, environment, own=own)


@api.get("/explanation", operation_id="provenance.explain", summary="Where each key comes from, without values")
def explanation(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    key: OneKey = None,
) -> list[KeyExplanation]:
    return list(platform.provenance.explain(actor, project, environment, key))


@api.get("/history", operation_id="provenance.history", summary="The versions of its own layer, newest first")
def history(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    key: OneKey = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[ConfigHistory]:
    return list(platform.provenance.history(actor, project, environment, key, limit))


@api.get("/diff/{other}", operation_id="provenance.diff", summary="The keys in which two environments differ")
def diff(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    other: Annotated[str, Path(max_length=1000, description="The environment to compare with.")],
) -> list[ConfigDifference]:
    return list(platform.provenance.diff(actor, project, environment, other))


@api.post(
    "/apply",
    operation_id="deployments.apply_config",
    summary="Deploy what is live once more, with the newest config",
    status_code=status.HTTP_201_CREATED,
)
def apply(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectName,
    environment: EnvironmentName,
    new: ConfigApply,
) -> DeploymentView:
    return platform.deployments.apply_config(actor, project, environment, new.trigger, new.reason)
