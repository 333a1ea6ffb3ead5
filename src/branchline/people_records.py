"""What operations need from the platform's memory of people and machines: members, their roles, their tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from branchline.domain.access import Role, Scope

GROUPS_COUNT_FOR = timedelta(days=30)
"""After a login its groups count for so long: whoever left one keeps nothing by a token that lives on."""


@dataclass(frozen=True)
class Member:
    """A person. `groups` are those that the provider of their identity named at the last login."""

    id: int
    name: str
    email: str = ""
    groups: tuple[str, ...] = ()
    last_login_at: datetime | None = None
    disabled_at: datetime | None = None


@dataclass(frozen=True)
class Grant:
    """A role in a project (or EVERYWHERE) that a member or, where `is_group`, all of a group have."""

    holder: str
    project: str
    role: Role
    is_group: bool = False


class Members(Protocol):
    """People, and what roles they and their groups have."""

    def add(self, name: str, email: str = "", *, let_in_again: bool = True) -> Member:
        """The member of this name, made where new. A disabled one is let in again, or Refused (`disabled`) is raised.

        Raises Conflict (`name_taken`) where a machine's token or another member is called alike, or the e-mail address
        is somebody else's.
        """

    def sign_in(self, issuer: str, subject: str, name: str, email: str, groups: Sequence[str]) -> Member:
        """The member of this identity, noting the login and its groups.

        Whoever was added with this e-mail address and never logged in is taken for its owner: pass it only where the
        provider vouches for it. Else a member is made, whose name is made unlike all others. Raises Refused
        (`disabled`), also where the address is that of somebody who was disabled: they get in by no other door.
        """

    def get(self, name: str) -> Member:
        """Raises NotFound (`unknown_member`)."""

    def by_id(self, member: int) -> Member:
        """Raises NotFound (`unknown_member`)."""

    def all(self) -> list[Member]:
        """By name, without those that are disabled."""

    def disable(self, member: Member) -> None:
        """Take their roles, groups and tokens away, and let them in no more."""

    def grant(self, grant: Grant) -> Role | None:
        """Give a role in place of the one they had there, which is returned. Raises NotFound: `unknown_project`."""

    def withdraw(self, holder: str, project: str, *, is_group: bool) -> Role | None:
        """Take a role away again; return it."""

    def grants(self) -> list[Grant]:
        """All of them, by holder and project."""

    def grants_of(self, member: int) -> Mapping[str, Role]:
        """By project or EVERYWHERE: the highest of what the member and their groups have."""


@dataclass(frozen=True)
class TokenRecord:
    """A token as it is stored: never the token itself.

    That of a member has no role of its own: it can what they can, within its scope. A machine's has a role, in the
    projects of its scope or everywhere.
    """

    id: int
    name: str
    created_at: datetime
    member: int | None = None
    member_name: str = ""
    role: Role | None = None
    scope: Scope = field(default_factory=Scope)
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class Tokens(Protocol):
    """Tokens, by their digest."""

    def add(
        self,
        name: str,
        digest: str,
        *,
        member: int | None = None,
        role: Role | None = None,
        scope: Scope,
        expires_at: datetime | None = None,
    ) -> TokenRecord:
        """Raises Conflict: `token_exists`; `disabled` where its member is; `name_taken` where a machine's would be
        called like a member.
        """

    def by_digest(self, digest: str) -> tuple[TokenRecord, Mapping[str, Role]] | None:
        """The token, noting that it was used, with the roles that its member has now.

        None for an unknown one, and for that of a disabled member.

        Whether it has expired is not asked here.
        """

    def get(self, name: str, member: int | None) -> TokenRecord:
        """A member's token, or a machine's, by its name; raises NotFound (`unknown_token`)."""

    def all(self, members: Collection[int] | None = None) -> list[TokenRecord]:
        """By owner and name: all that there are, or those of some members."""

    def remove(self, token: TokenRecord) -> None: ...
