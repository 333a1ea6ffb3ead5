"""Members, their roles and their tokens, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from branchline.domain.access import EVERYWHERE, Permission, Role, Scope, higher
from branchline.domain.errors import Conflict, NotFound, Refused
from branchline.domain.names import LONGEST_LABEL, alike
from branchline.people_records import GROUPS_COUNT_FOR, Grant, Member, TokenRecord
from branchline.store import tables as t

_NAMES_LOCK = 0x6E61_6D65  # "name": of members and of machines' tokens no two may be called the same
_NOW = sa.func.clock_timestamp()

_PLACE = sa.func.coalesce(t.project.c.name, EVERYWHERE)
_GRANTS = sa.select(_PLACE, t.role_grant.c.role).select_from(t.role_grant).outerjoin(t.project)
_IS_HELD_BY_MEMBER = (t.role_grant.c.member_id == t.member.c.id) | (
    sa.func.jsonb_exists(t.member.c.groups, t.role_grant.c.group_name)
    & (t.member.c.last_login_at > sa.func.now() - GROUPS_COUNT_FOR)
)


def _hold_names(connection: sa.Connection) -> None:
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NAMES_LOCK)))


def _names(connection: sa.Connection) -> Iterable[str]:
    """What members and machines' tokens are called."""
    machines = sa.select(t.token.c.name).where(t.token.c.member_id.is_(None))
    return connection.execute(sa.select(t.member.c.name).union_all(machines)).scalars()


def _alike(connection: sa.Connection, name: str) -> str | None:
    """The name that somebody has and a reader would take for this one."""
    return next((one for one in _names(connection) if alike(one) == alike(name)), None)


def _shut_out(member: Member) -> Refused:
    return Refused(
        f"{member.name} is not let in any more.",
        code="disabled",
        hint="An admin took them off; `branchline member add` lets them in again.",
    )


class SqlMembers:
    """Port `Members`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, name: str, email: str = "", *, let_in_again: bool = True) -> Member:
        """The member of this name, made where new. A disabled one is let in again, or Refused is raised."""
        _hold_names(self._db)
        if (known := self._where(t.member.c.name == name)) is None:
            if (taken := _alike(self._db, name)) is not None:
                raise Conflict(
                    f"{taken} is the name of a member or of a machine's token already.",
                    code="name_taken",
                    hint="In the register nobody could tell the two apart: choose another name.",
                )
            self._check_email(email, None)
            return self._insert(name=name, email=email)
        if known.disabled_at is not None and not let_in_again:
            raise _shut_out(known)
        changes: dict[str, Any] = {"disabled_at": None}
        if email:
            self._check_email(email, known.id)
            changes["email"] = email
        return self._update(known.id, **changes)

    def sign_in(self, issuer: str, subject: str, name: str, email: str, groups: Sequence[str]) -> Member:
        """The member of this identity, noting the login and its groups."""
        _hold_names(self._db)
        known = self._where((t.member.c.issuer == issuer) & (t.member.c.subject == subject))
        if known is None and email:
            meant = t.member.c.issuer.is_(None) | t.member.c.disabled_at.is_not(None)
            known = self._where(meant & (sa.func.lower(t.member.c.email) == email.lower()))
        if known is not None and known.disabled_at is not None:
            raise _shut_out(known)
        login = {"issuer": issuer, "subject": subject, "groups": list(groups), "last_login_at": _NOW}
        if known is not None:
            return self._update(known.id, **login)
        taken = email and self._where(sa.func.lower(t.member.c.email) == email.lower()) is not None
        return self._insert(name=self._free(name), email="" if taken else email, **login)

    def _free(self, wanted: str) -> str:
        """The name, or with the first number behind it that makes it unlike all others."""
        taken, name, number = set(map(alike, _names(self._db))), wanted, 1
        while alike(name) in taken:
            number += 1
            name = f"{wanted[: LONGEST_LABEL - len(str(number)) - 1]}-{number}"
        return name

    def _check_email(self, email: str, mine: int | None) -> None:
        owner = self._where(sa.func.lower(t.member.c.email) == email.lower()) if email else None
        if owner is not None and owner.id != mine:
            raise Conflict(
                f"The address {email} is that of {owner.name}.", code="name_taken", hint="See `branchline member list`."
            )

    def _insert(self, **values: Any) -> Member:
        return _member(self._db.execute(t.member.insert().values(**values).returning(t.member)).one())

    def _update(self, member: int, **values: Any) -> Member:
        change = t.member.update().where(t.member.c.id == member).values(**values)
        return _member(self._db.execute(change.returning(t.member)).one())

    def _where(self, this: sa.ColumnElement[bool]) -> Member | None:
        row = self._db.execute(sa.select(t.member).where(this)).first()
        return None if row is None else _member(row)

    def get(self, name: str) -> Member:
        """Raises NotFound (`unknown_member`)."""
        return self._known(t.member.c.name == name, repr(name[:60]))

    def by_id(self, member: int) -> Member:
        """Raises NotFound (`unknown_member`)."""
        return self._known(t.member.c.id == member, str(member))

    def _known(self, this: sa.ColumnElement[bool], called: str) -> Member:
        if (found := self._where(this)) is None:
            raise NotFound(f"There is no member {called}.", code="unknown_member", hint="See `branchline member list`.")
        return found

    def all(self) -> list[Member]:
        """By name, without those that are disabled."""
        query = sa.select(t.member).where(t.member.c.disabled_at.is_(None)).order_by(t.member.c.name)
        return [_member(row) for row in self._db.execute(query)]

    def disable(self, member: Member) -> None:
        """Take their roles, groups and tokens away, and let them in no more."""
        _hold_names(self._db)  # whoever logs in or is let in again at this moment is through, or sees it
        self._update(member.id, disabled_at=_NOW, groups=[])
        self._db.execute(t.role_grant.delete().where(t.role_grant.c.member_id == member.id))
        self._db.execute(t.token.delete().where(t.token.c.member_id == member.id))

    def grant(self, grant: Grant) -> Role | None:
        """Give a role, in place of the one they had there, which is returned."""
        _hold_names(self._db)
        before = self.withdraw(grant.holder, grant.project, is_group=grant.is_group)
        values: dict[str, Any] = {"project_id": self._project(grant.project), "role": grant.role}
        values |= {"group_name": grant.holder} if grant.is_group else {"member_id": self.get(grant.holder).id}
        self._db.execute(t.role_grant.insert().values(**values))
        return before

    def withdraw(self, holder: str, project: str, *, is_group: bool) -> Role | None:
        """Take a role away again; return it."""
        whose = t.role_grant.c.group_name == holder if is_group else t.role_grant.c.member_id == self.get(holder).id
        where = t.role_grant.c.project_id.is_not_distinct_from(self._project(project))
        gone = self._db.execute(t.role_grant.delete().where(whose, where).returning(t.role_grant.c.role)).scalar()
        return None if gone is None else Role(gone)

    def _project(self, name: str) -> int | None:
        if name == EVERYWHERE:
            return None
        found = self._db.execute(sa.select(t.project.c.id).where(t.project.c.name == name)).scalar()
        if found is None:
            raise NotFound(
                f"There is no project {name[:60]!r}.", code="unknown_project", hint="See `branchline project list`."
            )
        return int(found)

    def grants(self) -> list[Grant]:
        """All of them, by holder and project."""
        holder = sa.func.coalesce(t.member.c.name, t.role_grant.c.group_name)
        project = sa.func.coalesce(t.project.c.name, EVERYWHERE)
        query = (
            sa.select(holder, project, t.role_grant.c.role, t.role_grant.c.group_name.is_not(None))
            .select_from(t.role_grant)
            .outerjoin(t.member)
            .outerjoin(t.project)
            .order_by(holder, project)
        )
        return [Grant(who, where, Role(role), is_group) for who, where, role, is_group in self._db.execute(query)]

    def grants_of(self, member: int) -> Mapping[str, Role]:
        """By project or EVERYWHERE: the highest of what the member and their groups have."""
        query = _GRANTS.join(t.member, t.member.c.id == member).where(_IS_HELD_BY_MEMBER)
        return _highest((place, role) for place, role in self._db.execute(query))


def _highest(found: Iterable[tuple[str, str]]) -> dict[str, Role]:
    highest: dict[str, Role] = {}
    for place, role in found:
        highest[place] = higher(Role(role), highest.get(place))
    return highest


def _member(row: sa.Row[tuple[Any, ...]]) -> Member:
    return Member(row.id, row.name, row.email, tuple(row.groups), row.last_login_at, row.disabled_at)


_TOKENS = sa.select(t.token, t.member.c.name.label("member_name")).outerjoin_from(t.token, t.member)
# Once a minute is exact enough for "last used", and spares a write per request.
_STALE = t.token.c.last_used_at.is_(None) | (t.token.c.last_used_at < sa.func.now() - sa.text("interval '1 minute'"))
_BY_DIGEST = _TOKENS.add_columns(
    _STALE.label("stale"),
    _GRANTS.where(_IS_HELD_BY_MEMBER)
    .with_only_columns(sa.func.jsonb_agg(sa.func.jsonb_build_array(_PLACE, t.role_grant.c.role)))
    .correlate(t.member)
    .scalar_subquery()
    .label("roles"),
).where(t.token.c.digest == sa.bindparam("digest"), t.member.c.disabled_at.is_(None))
"""All that one request's authorisation needs, in one question."""


class SqlTokens:
    """Port `Tokens`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

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
        """Raises Conflict: `token_exists`, `disabled`, `name_taken`."""
        if member is None:
            _hold_names(self._db)
            members = self._db.execute(sa.select(t.member.c.name)).scalars()
            if taken := next((one for one in members if alike(one) == alike(name)), None):
                raise Conflict(
                    f"{taken} is a member: a machine's token of that name would pass for them in the register.",
                    code="name_taken",
                    hint="Choose another name, or make a token of theirs with --for.",
                )
        else:
            self._check_let_in(member)
        new = insert(t.token).values(
            name=name,
            digest=digest,
            member_id=member,
            role=role,
            projects=None if scope.projects is None else sorted(scope.projects),
            permissions=None if scope.permissions is None else sorted(scope.permissions),
            expires_at=expires_at,
        )
        if self._db.execute(new.on_conflict_do_nothing().returning(t.token.c.id)).scalar() is None:
            raise Conflict(
                f"There is a token {name!r} already.",
                code="token_exists",
                hint="Choose another name, or revoke that one with `branchline token revoke`.",
            )
        return self.get(name, member)

    def _check_let_in(self, member: int) -> None:
        """Shared with whoever makes another, and against whoever disables the member: they wait, or we see it."""
        whose = sa.select(t.member.c.name, t.member.c.disabled_at).where(t.member.c.id == member)
        name, disabled_at = self._db.execute(whose.with_for_update(read=True)).one()
        if disabled_at is not None:
            raise Conflict(
                f"{name} is not let in any more.", code="disabled", hint="`branchline member add` lets them in again."
            )

    def by_digest(self, digest: str) -> tuple[TokenRecord, Mapping[str, Role]] | None:
        """The token, noting that it was used, with the roles that its member has now; None for an unknown one."""
        row = self._db.execute(_BY_DIGEST, {"digest": digest}).first()
        if row is None:
            return None
        if row.stale:
            self._db.execute(t.token.update().where(t.token.c.id == row.id).values(last_used_at=sa.func.now()))
        return _token(row), _highest(row.roles or ())

    def get(self, name: str, member: int | None) -> TokenRecord:
        """A member's token, or a machine's, by its name."""
        mine = t.token.c.member_id.is_not_distinct_from(member)
        row = self._db.execute(_TOKENS.where(t.token.c.name == name, mine)).first()
        if row is None:
            raise NotFound(
                f"There is no token {name[:60]!r}.", code="unknown_token", hint="See `branchline token list`."
            )
        return _token(row)

    def all(self, members: Collection[int] | None = None) -> list[TokenRecord]:
        """By owner and name: all that there are, or those of some members."""
        query = _TOKENS.order_by(sa.func.coalesce(t.member.c.name, ""), t.token.c.name)
        if members is not None:
            query = query.where(t.token.c.member_id.in_(members))
        return [_token(row) for row in self._db.execute(query)]

    def remove(self, token: TokenRecord) -> None:
        """From now on nobody gets in with it."""
        self._db.execute(t.token.delete().where(t.token.c.id == token.id))


def _token(row: sa.Row[tuple[Any, ...]]) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        member=row.member_id,
        member_name=row.member_name or "",
        role=None if row.role is None else Role(row.role),
        scope=Scope(
            None if row.projects is None else frozenset(row.projects),
            None if row.permissions is None else frozenset(map(Permission, row.permissions)),
        ),
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )
