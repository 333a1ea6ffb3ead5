"""Who may do what: actors, roles and permissions, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from branchline.domain.environment import Tier
from branchline.domain.errors import Refused


class Permission(StrEnum):
    """What can be allowed."""

    READ = "project:read"
    DEPLOY = "environment:deploy"
    DEPLOY_PRODUCTION = "production:deploy"
    CONFIG_READ = "config:read"
    CONFIG_WRITE = "config:write"
    CONFIG_WRITE_PRODUCTION = "production:config"
    PROJECTS = "platform:projects"
    PLATFORM = "platform:operate"


class Role(StrEnum):
    """A bundle of permissions."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    MAINTAINER = "maintainer"
    ADMIN = "admin"


_VIEWER = frozenset({Permission.READ})
_DEVELOPER = _VIEWER | {Permission.DEPLOY, Permission.CONFIG_READ, Permission.CONFIG_WRITE}
_MAINTAINER = _DEVELOPER | {Permission.DEPLOY_PRODUCTION, Permission.CONFIG_WRITE_PRODUCTION}

ROLES: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.DEVELOPER: _DEVELOPER,
    Role.MAINTAINER: _MAINTAINER,
    Role.ADMIN: _MAINTAINER | {Permission.PROJECTS, Permission.PLATFORM},
}


@dataclass(frozen=True)
class Actor:
    """Who acts: a name for the register, how they proved it, and their role."""

    name: str
    proof: str
    role: Role

    def may(self, permission: Permission) -> bool:
        """Whether the actor's role holds the permission."""
        return permission in ROLES[self.role]

    def require(self, permission: Permission) -> None:
        """Raise Refused unless the actor may do this."""
        if not self.may(permission):
            raise Refused(
                f"{self.name} may not do this: it needs the permission {permission}.",
                hint=f"The role is {self.role}. Ask an admin for a token with a role that holds {permission}.",
            )


def deploy_permission(tier: Tier) -> Permission:
    """The permission that a deployment into an environment of this tier needs."""
    return Permission.DEPLOY_PRODUCTION if tier is Tier.PRODUCTION else Permission.DEPLOY


def config_permission(tier: Tier) -> Permission:
    """The permission that changing an environment's config needs."""
    return Permission.CONFIG_WRITE_PRODUCTION if tier is Tier.PRODUCTION else Permission.CONFIG_WRITE
