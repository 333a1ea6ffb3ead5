"""Members, roles and tokens in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from branchline.domain.access import EVERYWHERE, Role, Scope, higher
from branchline.domain.errors import Conflict, NotFound, Refused
from branchline.domain.names import LONGEST_LABEL, alike
from branchline.domain.project import Project
from branchline.people_records import GROUPS_COUNT_FOR, Grant, Member, TokenRecord


@dataclass
class People:
    """What is known of people: members with their identities, roles, tokens with their digests."""

    members: dict[int, Member] = field(default_factory=dict)
    identities: dict[tuple[str, str], int] = field(default_factory=dict)
    grants: dict[tuple[str, bool, str], Role] = field(default_factory=dict)
    tokens: dict[str, TokenRecord] = field(default_factory=dict)
    made: int = 0


class MemoryMembers:
    def __init__(self, people: People, projects: Mapping[str, Project]) -> None:
        self._p = people
        self._projects = projects

    def add(self, name: str, email: str = "", *, let_in_again: bool = True) -> Member:
        known = self._called(name)
        if known is None and alike(name) in self._taken():
            raise Conflict(f"Somebody is called {name}.", code="name_taken")
        if known is not None and known.disabled_at and not let_in_again:
            raise Refused(f"{name} is not let in any more.", code="disabled")
        owner = self._at(email)
        if owner and owner != known:
            raise Conflict(f"The address {email} is another's.", code="name_taken")
        if known is None:
            return self._keep(Member(len(self._p.members) + 1, name, email))
        return self._keep(replace(known, disabled_at=None, email=email or known.email))

    def sign_in(self, issuer: str, subject: str, name: str, email: str, groups: Sequence[str]) -> Member:
        number = self._p.identities.get((issuer, subject))
        owner = self._at(email)
        if number is None and owner and (owner.disabled_at or owner.id not in self._p.identities.values()):
            number = owner.id
        if number is None:
            free, count = name, 1
            while alike(free) in self._taken():
                count += 1
                free = f"{name[: LONGEST_LABEL - len(str(count)) - 1]}-{count}"
            number = self._keep(Member(len(self._p.members) + 1, free, "" if owner else email)).id
        known = self._p.members[number]
        if known.disabled_at:
            raise Refused(f"{known.name} is not let in any more.", code="disabled")
        self._p.identities[issuer, subject] = number
        return self._keep(replace(known, groups=tuple(groups), last_login_at=datetime.now(UTC)))

    def _taken(self) -> set[str]:
        machines = (one.name for one in self._p.tokens.values() if one.member is None)
        return set(map(alike, [*(one.name for one in self._p.members.values()), *machines]))

    def _keep(self, member: Member) -> Member:
        self._p.members[member.id] = member
        return member

    def _called(self, name: str) -> Member | None:
        return next((one for one in self._p.members.values() if one.name == name), None)

    def _at(self, email: str) -> Member | None:
        same = (one for one in self._p.members.values() if email and one.email.lower() == email.lower())
        return next(same, None)

    def get(self, name: str) -> Member:
        if (found := self._called(name)) is None:
            raise NotFound(f"There is no member {name!r}.", code="unknown_member")
        return found

    def by_id(self, member: int) -> Member:
        if member not in self._p.members:
            raise NotFound(f"There is no member {member}.", code="unknown_member")
        return self._p.members[member]

    def all(self) -> list[Member]:
        return sorted((one for one in self._p.members.values() if not one.disabled_at), key=lambda one: one.name)

    def disable(self, member: Member) -> None:
        self._keep(replace(self._p.members[member.id], disabled_at=datetime.now(UTC), groups=()))
        for key in [key for key in self._p.grants if key[:2] == (member.name, False)]:
            del self._p.grants[key]
        for digest in [digest for digest, one in self._p.tokens.items() if one.member == member.id]:
            del self._p.tokens[digest]

    def grant(self, grant: Grant) -> Role | None:
        before = self.withdraw(grant.holder, grant.project, is_group=grant.is_group)
        self._p.grants[grant.holder, grant.is_group, grant.project] = grant.role
        return before

    def withdraw(self, holder: str, project: str, *, is_group: bool) -> Role | None:
        if not is_group:
            self.get(holder)
        if project != EVERYWHERE and project not in self._projects:
            raise NotFound(f"There is no project {project!r}.", code="unknown_project")
        return self._p.grants.pop((holder, is_group, project), None)

    def grants(self) -> list[Grant]:
        found = [Grant(who, where, role, is_group) for (who, is_group, where), role in self._p.grants.items()]
        return sorted(found, key=lambda one: (one.holder, one.project))

    def grants_of(self, member: int) -> Mapping[str, Role]:
        mine = self._p.members[member]
        fresh = mine.last_login_at is not None and mine.last_login_at > datetime.now(UTC) - GROUPS_COUNT_FOR
        groups = mine.groups if fresh else ()
        found: dict[str, Role] = {}
        for (who, is_group, where), role in self._p.grants.items():
            if who in groups if is_group else who == mine.name:
                found[where] = higher(role, found.get(where))
        return found


class MemoryTokens:
    def __init__(self, people: People) -> None:
        self._p = people

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
        if member is None and alike(name) in {alike(one.name) for one in self._p.members.values()}:
            raise Conflict(f"{name} is a member.", code="name_taken")
        if member is not None and self._p.members[member].disabled_at:
            raise Conflict("They are not let in any more.", code="disabled")
        if any((one.name, one.member) == (name, member) for one in self._p.tokens.values()):
            raise Conflict(f"There is a token {name!r} already.", code="token_exists")
        self._p.made += 1
        whose = self._p.members[member].name if member else ""
        made = TokenRecord(self._p.made, name, datetime.now(UTC), member, whose, role, scope, expires_at)
        self._p.tokens[digest] = made
        return made

    def by_digest(self, digest: str) -> tuple[TokenRecord, Mapping[str, Role]] | None:
        if (found := self._p.tokens.get(digest)) is None:
            return None
        if found.member is not None and self._p.members[found.member].disabled_at:
            return None
        self._p.tokens[digest] = replace(found, last_used_at=datetime.now(UTC))
        return found, MemoryMembers(self._p, {}).grants_of(found.member) if found.member else {}

    def get(self, name: str, member: int | None) -> TokenRecord:
        for one in self._p.tokens.values():
            if (one.name, one.member) == (name, member):
                return one
        raise NotFound(f"There is no token {name!r}.", code="unknown_token")

    def all(self, members: Collection[int] | None = None) -> list[TokenRecord]:
        found = [one for one in self._p.tokens.values() if members is None or one.member in members]
        return sorted(found, key=lambda one: (one.member_name, one.name))

    def remove(self, token: TokenRecord) -> None:
        self._p.tokens = {digest: one for digest, one in self._p.tokens.items() if one.id != token.id}
