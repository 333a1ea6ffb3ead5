"""Members: who people are, and which roles they and their groups have where."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from branchline.domain.access import EVERYWHERE, ROLES, Actor, Permission, Role, Scope
from branchline.domain.audit import Kind
from branchline.domain.errors import BadInput, NotFound, Refused
from branchline.domain.names import check_actor, check_label
from branchline.operations.gate import Gate
from branchline.people_records import Grant, Member
from branchline.records import Records, Store
from branchline.wire_people import MemberView


class Members:
    """The people of this platform. Roles in a project are given by its maintainers, all others by admins."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def list(self, actor: Actor, project: str | None = None) -> list[MemberView]:
        """Who has a role in a project, or all members and all groups that have one; by name."""
        self._gate.require(actor, _permission(project), project=project)
        with self._store.transaction() as records:
            if project is not None:
                records.projects.get(project)
            grants, members = records.members.grants(), records.members.all()
        roles: dict[tuple[str, bool], dict[str, Role]] = {(one.name, False): {} for one in members}
        for grant in grants:
            roles.setdefault((grant.holder, grant.is_group), {})[grant.project] = grant.role
        people = {one.name: one for one in members}
        return [
            _view(name, is_group, held, None if is_group else people[name])
            for (name, is_group), given in sorted(roles.items())
            if (held := _held(given, project)) or project is None
        ]

    def add(
        self, actor: Actor, name: str, role: Role, project: str | None = None, email: str = "", *, group: bool = False
    ) -> MemberView:
        """Give a member, made where new, or a group a role in a project or everywhere, in place of what they had there.

        Nobody gives more than what they may themselves, by what they came with: else a token that is good for members
        alone were good for everything, by way of an accomplice. Who was shut out is let in again by admins alone.

        Raises BadInput: `bad_name`, `reserved_name`, `admin_everywhere`, `no_email` where a group is given one.
        """
        self._gate.require(actor, _permission(project), project=project)
        if group:
            check_label(name, "name of a group")
        else:
            check_actor(name, "name of a member")
        if role is Role.ADMIN and project is not None:
            raise BadInput(
                "An admin is one of the whole platform.",
                code="admin_everywhere",
                hint="Leave --project out, or choose another role.",
            )
        if group and email:
            raise BadInput("A group has no e-mail address.", code="no_email", hint="Leave --email out.")
        for permission in sorted(ROLES[role]):
            self._gate.require(actor, permission, project=project)
        if email:
            # Whoever owns the address gets in as this member, with all the roles that they have elsewhere.
            self._gate.require(actor, Permission.PLATFORM)
        is_admin = actor.may(Permission.PLATFORM)
        try:
            with self._store.transaction() as records:
                where = _place(records, project)
                member = None if group else records.members.add(name, email, let_in_again=is_admin)
                before = records.members.grant(Grant(name, where, role, group))
                detail = {"group" if group else "member": name, "role": role, "before": before, "email": email}
                event = actor.event(Kind.MEMBER_CHANGED, project, detail={k: v for k, v in detail.items() if v})
                records.register.add(event)
                given = {one.project: one.role for one in records.members.grants() if _is(one, name, group)}
        except Refused:
            self._gate.require(actor, Permission.PLATFORM)
            raise
        return _view(name, group, _held(given, project), member)

    def remove(self, actor: Actor, name: str, project: str | None = None, *, group: bool = False) -> None:
        """Take a role in a project away. Without one: a group loses the role that it has everywhere, and a person all
        roles and tokens, and gets in no more.

        Raises NotFound: `unknown_member`, `no_role`.
        """
        self._gate.require(actor, _permission(project), project=project)
        who = {"group" if group else "member": name}
        with self._store.transaction() as records:
            if group or project is not None:
                if (role := records.members.withdraw(name, _place(records, project), is_group=group)) is None:
                    raise NotFound(
                        f"{name} has no role {f'in {project}' if project else 'everywhere'}.",
                        code="no_role",
                        hint="`branchline member list` shows who has which.",
                    )
                records.register.add(actor.event(Kind.MEMBER_CHANGED, project, detail={**who, "before": role}))
                return
            member = records.members.get(name)
            records.members.disable(member)
            records.sessions.end_all(member.name)  # let in again one day, they log in anew
            records.register.add(actor.event(Kind.MEMBER_REMOVED, detail=who))


def actor_of(
    records: Records,
    member: int,
    name: str,
    proof: str,
    *,
    source: str = "",
    scope: Scope | None = None,
    until: datetime | None = None,
    token: int | None = None,
) -> Actor:
    """The actor that a member is, with the roles that they have now."""
    return Actor(name, proof, records.members.grants_of(member), scope or Scope(), source, member, until, token)


def _permission(project: str | None) -> Permission:
    return Permission.PLATFORM if project is None else Permission.MEMBERS


def _place(records: Records, project: str | None) -> str:
    """Where a role is given. What names no project is none, and never stands for all of them."""
    return EVERYWHERE if project is None else records.projects.get(project).name


def _held(roles: Mapping[str, Role], project: str | None) -> dict[str, Role]:
    """What of somebody's roles concerns a project: who may look after its members need not know of any other."""
    return {where: role for where, role in roles.items() if project is None or where in {project, EVERYWHERE}}


def _is(grant: Grant, name: str, group: bool) -> bool:
    return (grant.holder, grant.is_group) == (name, group)


def _view(name: str, is_group: bool, roles: Mapping[str, Role], member: Member | None) -> MemberView:
    return MemberView(
        name=name,
        group=is_group,
        roles=dict(roles),
        email=member.email if member else "",
        groups=list(member.groups) if member else [],
        last_login_at=member.last_login_at if member else None,
    )
