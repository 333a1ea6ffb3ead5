"""Environments: where releases run, and which ref goes where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from branchline.domain.errors import BadInput

if TYPE_CHECKING:
    from branchline.domain.manifest import Manifest

BRANCH = "refs/heads/"
TAG = "refs/tags/"


class Tier(StrEnum):
    """A wall: nothing of one tier (runner, identity, database server) can reach the other."""

    NONPROD = "nonprod"
    PRODUCTION = "production"


DEVELOP = "develop"
"""The environment that branches are made after."""


class Inherits(StrEnum):
    """Whose config lies beneath that of a nonprod environment. `develop` includes `common`, the project's own."""

    NOTHING = "nothing"
    COMMON = "common"
    DEVELOP = "develop"


def tier_of(name: str) -> Tier:
    """The tier of an environment: `production` stands alone, every other name is nonprod."""
    return Tier.PRODUCTION if name == "production" else Tier.NONPROD


@dataclass(frozen=True)
class Environment:
    """Where a release of a project runs. `slot` numbers it on this platform: its subnet derives from it.

    `trouble` says what is missing of what is live, and why it cannot be put back.
    """

    id: int
    project: str
    name: str
    tier: Tier
    slot: int
    live_deployment: int | None = None
    trouble: str = ""
    inherits: Inherits = Inherits.DEVELOP

    @property
    def key(self) -> str:
        """A name that is unique on the platform and safe for containers, roles and folders.

        No name holds a `_`, so project `a`, environment `b-c` is never taken for project `a-b`, environment `c`.
        """
        return f"{self.project}_{self.name}"


@dataclass(frozen=True)
class Destination:
    """Where the manifest sends a ref."""

    name: str
    tier: Tier
    inherits: Inherits = Inherits.DEVELOP


def usually_inherits(name: str) -> Inherits:
    """What an environment inherits where the manifest does not say.

    A branch takes everything from develop. Develop and staging take what the whole project shares. Production takes
    nothing, whatever anybody says.
    """
    if tier_of(name) is Tier.PRODUCTION:
        return Inherits.NOTHING
    return Inherits.COMMON if name in {DEVELOP, "staging"} else Inherits.DEVELOP


def inherited_by(manifest: Manifest, name: str) -> Inherits:
    """What an environment inherits, as this manifest says."""
    rule = manifest.environments.get(name)
    return (rule.inherits if rule else None) or usually_inherits(name)


def destination(manifest: Manifest, ref: str) -> Destination:
    """Say which environment the manifest gives to a full ref (`refs/heads/…` or `refs/tags/…`).

    Production is the environment named `production`; only a tag rule can lead to it (the manifest's own
    validation sees to that), so a branch cannot move it whatever it is called. Raises BadInput
    (`no_environment`) when no rule matches.
    """
    for name, rule in manifest.environments.items():
        pattern = rule.on.branch if ref.startswith(BRANCH) else rule.on.tag
        prefix = BRANCH if ref.startswith(BRANCH) else TAG
        if pattern is not None and fnmatchcase(ref.removeprefix(prefix), pattern):
            return Destination(name, tier_of(name), inherited_by(manifest, name))
    rules = ", ".join(f"{rule.on} → {name}" for name, rule in manifest.environments.items())
    raise BadInput(
        f"{short(ref)} belongs to no environment of {manifest.project}.",
        code="no_environment",
        hint=f"The manifest knows: {rules}. Push to one of these, or add a rule under `environments`.",
    )


def short(ref: str) -> str:
    """Name a full ref as people do: `branch develop`, `tag v1.2.0`."""
    if ref.startswith(BRANCH):
        return f"branch {ref.removeprefix(BRANCH)}"
    if ref.startswith(TAG):
        return f"tag {ref.removeprefix(TAG)}"
    return ref


def hostname(environment: str, project: str, domain: str) -> str:
    """The hostname that every environment gets: one label, so that one wildcard certificate covers all."""
    return f"{environment}-{project}.{domain}"


def hostnames_of(manifest: Manifest, environment: str, domain: str) -> list[str]:
    """Every hostname at which a release with this manifest answers in an environment."""
    rule = manifest.environments.get(environment)
    return [hostname(environment, manifest.project, domain), *(rule.domains if rule else [])]
