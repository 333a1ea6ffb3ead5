"""Who may do what: actors, roles and permissions, as data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.environment import Tier
from branchline.domain.errors import Refused

EVERYWHERE = "*"
"""In place of a project's name: all of the platform."""


class Permission(StrEnum):
    """What can be allowed."""

    READ = "project:read"
    MEMBERS = "project:members"
    DEPLOY = "environment:deploy"
    RUN = "environment:run"
    CONFIG_READ = "config:read"
    CONFIG_WRITE = "config:write"
    DEPLOY_PRODUCTION = "production:deploy"
    ROLLBACK_PRODUCTION = "production:rollback"
    RUN_PRODUCTION = "production:run"
    THAW_PRODUCTION = "production:thaw"
    CONFIG_PRODUCTION = "production:config"
    CONFIG_READ_PRODUCTION = "production:config_values"
    OWN_TOKENS = "own:tokens"
    PROJECTS = "platform:projects"
    PLATFORM = "platform:operate"


class Role(StrEnum):
    """A bundle of permissions, each with all of those before it."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    MAINTAINER = "maintainer"
    ADMIN = "admin"


_VIEWER = frozenset({Permission.READ, Permission.OWN_TOKENS})
_DEVELOPER = _VIEWER | {Permission.DEPLOY, Permission.RUN, Permission.CONFIG_READ, Permission.CONFIG_WRITE}
_MAINTAINER = _DEVELOPER | {
    Permission.MEMBERS,
    Permission.DEPLOY_PRODUCTION,
    Permission.ROLLBACK_PRODUCTION,
    Permission.RUN_PRODUCTION,
    Permission.THAW_PRODUCTION,
    Permission.CONFIG_PRODUCTION,  # which keys there are, and writing values: reading these no role allows
}

ROLES: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.DEVELOPER: _DEVELOPER,
    Role.MAINTAINER: _MAINTAINER,
    Role.ADMIN: _MAINTAINER | {Permission.PROJECTS, Permission.PLATFORM},
}

_LADDER = list(Role)


def higher(one: Role, other: Role | None) -> Role:
    """The one of two roles that allows more."""
    return one if other is None else max(one, other, key=_LADDER.index)


@dataclass(frozen=True)
class Scope:
    """What a token narrows the rights of its owner to; None narrows nothing."""

    projects: frozenset[str] | None = None
    permissions: frozenset[Permission] | None = None

    def admits(self, permission: Permission, project: str | None) -> bool:
        """Whether the token lets this through, where its owner may do it. No project means all of the platform."""
        if self.permissions is not None and permission not in self.permissions:
            return False
        return self.projects is None or project in self.projects

    def within(self, other: Scope) -> bool:
        """Whether this admits nothing that the other does not."""
        pairs = ((self.projects, other.projects), (self.permissions, other.permissions))
        return all(theirs is None or (mine is not None and mine <= theirs) for mine, theirs in pairs)


@dataclass(frozen=True)
class Actor:
    """Who acts: a name for the register, how they proved it, from where, and their role in each project.

    `member` is who they are where they are a person; `until`, how long their proof is good; `token`, the number of the
    token that it is.
    """

    name: str
    proof: str
    grants: Mapping[str, Role] = field(default_factory=dict)
    scope: Scope = Scope()
    source: str = ""
    member: int | None = None
    until: datetime | None = None
    token: int | None = None

    def role(self, project: str | None = None) -> Role | None:
        """The role in a project, or everywhere."""
        everywhere, here = self.grants.get(EVERYWHERE), self.grants.get(project or EVERYWHERE)
        return higher(here, everywhere) if here else everywhere

    def may(self, permission: Permission, project: str | None = None) -> bool:
        """Whether the actor may do this in a project; without one, on all of the platform."""
        role = self.role(project)
        return role is not None and permission in ROLES[role] and self.scope.admits(permission, project)

    def may_somewhere(self, permission: Permission) -> bool:
        """Whether there is any project in which the actor may do this."""
        return any(self.may(permission, None if name == EVERYWHERE else name) for name in self._places())

    def projects(self, permission: Permission) -> frozenset[str] | None:
        """The names of the projects in which the actor may do this; None for all that there are."""
        if self.may(permission):
            return None
        return frozenset(name for name in self._places() if name != EVERYWHERE and self.may(permission, name))

    def _places(self) -> Collection[str]:
        return self.grants.keys() | (self.scope.projects or ())

    def require(self, permission: Permission, project: str | None = None) -> None:
        """Raise Refused unless the actor may do this."""
        if not self.may(permission, project):
            raise self.refusal(permission, project)

    def refusal(self, permission: Permission, project: str | None = None) -> Refused:
        """What to tell an actor who may not do this."""
        if permission is Permission.CONFIG_READ_PRODUCTION:
            return Refused(
                "Production's values can be written but not read.",
                code="production_config_unreadable",
                hint="`branchline config list` shows which keys are set. To know a value for sure, set it again.",
            )
        where = f" in {project}" if project else ""
        role = self.role(project)
        if role is None and project is None and self.grants and permission in ROLES[Role.ADMIN] - _MAINTAINER:
            hint = "It takes an admin, who is one everywhere: what you have are roles in projects."
        elif role is None:
            hint = f"Without a role{where} it cannot be. An admin gives one with `branchline member add`."
        elif permission in ROLES[role]:
            hint = f"The role {role} holds it, but the token is narrowed to less. See `branchline token list`."
        else:
            least = next(one for one in Role if permission in ROLES[one])
            hint = f"The role{where} is {role}; it takes {least}. An admin gives it with `branchline member add`."
        return Refused(f"{self.name} may not do this{where}: it needs the permission {permission}.", hint=hint)

    def event(
        self,
        kind: Kind,
        project: str | None = None,
        environment: str | None = None,
        deployment: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> AuditEvent:
        """A line for the register of something that the actor did."""
        return AuditEvent(
            kind, self.name, project, environment, deployment, dict(detail or {}), self.proof, self.source
        )


def deploy_permission(tier: Tier) -> Permission:
    """The permission that a deployment into an environment of this tier needs."""
    return Permission.DEPLOY_PRODUCTION if tier is Tier.PRODUCTION else Permission.DEPLOY


def config_permission(tier: Tier) -> Permission:
    """The permission that changing an environment's config needs."""
    return Permission.CONFIG_PRODUCTION if tier is Tier.PRODUCTION else Permission.CONFIG_WRITE


def keys_permission(tier: Tier) -> Permission:
    """The permission that seeing which keys an environment has needs."""
    return Permission.CONFIG_PRODUCTION if tier is Tier.PRODUCTION else Permission.READ


def values_permission(tier: Tier) -> Permission:
    """The permission that reading an environment's values needs."""
    return Permission.CONFIG_READ_PRODUCTION if tier is Tier.PRODUCTION else Permission.CONFIG_READ
