"""Config: keys set, unset and read, with a line in the register for every change, never a value."""

from __future__ import annotations

from collections.abc import Mapping

from branchline.domain.access import Actor, Permission, config_permission
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.config import Secret, check_key, check_value
from branchline.domain.environment import tier_of
from branchline.domain.errors import NotFound
from branchline.domain.names import check_name
from branchline.operations.gate import Gate
from branchline.ports import ConfigWriter
from branchline.records import Store
from branchline.wire import ConfigKeys, ConfigValue, ConfigVersion


class Settings:
    """The config of environments, from the side of people."""

    def __init__(self, store: Store, gate: Gate, writer: ConfigWriter) -> None:
        self._store = store
        self._gate = gate
        self._writer = writer

    def keys(self, actor: Actor, project: str, environment: str) -> ConfigKeys:
        """Which keys are set, and the version."""
        self._check(project, environment)
        self._gate.require(actor, Permission.READ, project=project, environment=environment)
        keys, version = self._writer.keys(project, environment)
        return ConfigKeys(project=project, environment=environment, version=version, keys=keys)

    def get(self, actor: Actor, project: str, environment: str, key: str) -> ConfigValue:
        """One value; production's are never shown."""
        self._check(project, environment)
        check_key(key)
        self._gate.require(actor, Permission.CONFIG_READ, project=project, environment=environment)
        config = self._writer.read(project, environment)
        if key not in config:
            raise NotFound(
                f"{key} is not set in {project} {environment}.",
                code="unknown_key",
                hint=f"`branchline config list {project} {environment}` shows the keys that are.",
            )
        return ConfigValue(key=key, value=config[key].reveal(), version=config.version)

    def change(
        self,
        actor: Actor,
        project: str,
        environment: str,
        changes: Mapping[str, str | None],
        expected_version: int | None = None,
    ) -> ConfigVersion:
        """Set keys, or with None unset them. The next deployment takes them up."""
        self._check(project, environment)
        needed = config_permission(tier_of(environment))
        self._gate.require(actor, needed, project=project, environment=environment)
        checked: dict[str, Secret | None] = {}
        for key, value in changes.items():
            checked[check_key(key)] = None if value is None else check_value(key, value)
        version = self._writer.write(project, environment, checked, expected_version=expected_version)
        with self._store.transaction() as records:
            detail = {
                "set": sorted(key for key, value in checked.items() if value is not None),
                "unset": sorted(key for key, value in checked.items() if value is None),
                "version": version,
            }
            event = AuditEvent(Kind.CONFIG_CHANGED, actor.name, project, environment, detail=detail)
            records.register.add(event)
        return ConfigVersion(version=version)

    def _check(self, project: str, environment: str) -> None:
        check_name(environment, "name of an environment")
        with self._store.transaction() as records:
            records.projects.get(project)
