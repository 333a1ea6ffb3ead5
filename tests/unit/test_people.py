"""Members and tokens: who may give what to whom, and what a token is good for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from branchline.domain.access import EVERYWHERE, Actor, Permission, Role
from branchline.domain.audit import Kind
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, BranchlineError, Refused, Unauthenticated
from branchline.operations.gate import MOST_LINES, WINDOW, Gate
from branchline.operations.logins import Begun, Entered, Returned
from branchline.operations.members import Members
from branchline.operations.tokens import PERSONAL_DAYS, Tokens
from branchline.ports.logins import Attempt
from branchline.wire_logins import DeviceCodes, DevicePoll, DeviceToken
from branchline.wire_people import NewMember, NewToken
from tests.fakes.store import MemoryStore

ROOT = Actor("root", "token root", {EVERYWHERE: Role.ADMIN})


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.members = Members(self.store, Gate(self.store))
        self.tokens = Tokens(self.store, Gate(self.store))
        with self.store.transaction() as records:
            for name in ("shop", "till"):
                records.projects.add(name, f"/srv/{name}.git")

    def person(self, name: str, **roles: Role) -> Actor:
        """A member with a role in each of these projects (`everywhere` is one), who came with a token of theirs."""
        for project, role in roles.items():
            self.members.add(ROOT, name, role, None if project == "everywhere" else project)
        return self.authenticated(self.tokens.create(ROOT, NewToken(name=f"of-{name}", member=name)).token)

    def authenticated(self, token: str) -> Actor:
        return self.tokens.authenticate(token, "192.0.2.7")

    def events(self, kind: Kind) -> list[Any]:
        return [event for _, event in self.store.tables.events if event.kind is kind]


@pytest.fixture
def world() -> World:
    return World()


def code(call: Any) -> str:
    with pytest.raises(BranchlineError) as caught:
        call()
    return caught.value.code


# --- members ---


def test_a_person_can_what_their_roles_allow_now(world: World) -> None:
    ada = world.person("ada", shop=Role.DEVELOPER)
    assert (ada.name, ada.proof, ada.source) == ("ada", "token of-ada", "192.0.2.7")
    assert ada.may(Permission.DEPLOY, "shop")
    assert not ada.may(Permission.READ, "till")
    token = world.tokens.create(ROOT, NewToken(name="laptop", member="ada")).token
    world.members.add(ROOT, "ada", Role.VIEWER, "shop")
    assert not world.authenticated(token).may(Permission.DEPLOY, "shop"), "with the next request"
    world.members.remove(ROOT, "ada", "shop")
    assert not world.authenticated(token).may(Permission.READ, "shop")
    world.members.remove(ROOT, "ada")
    assert code(lambda: world.authenticated(token)) == "unauthenticated"


def test_maintainers_give_roles_in_their_project_alone(world: World) -> None:
    max_ = world.person("max", shop=Role.MAINTAINER)
    assert world.members.add(max_, "bob", Role.MAINTAINER, "shop").roles == {"shop": Role.MAINTAINER}
    world.members.add(max_, "acme/dev", Role.DEVELOPER, "shop", group=True)
    assert [one.name for one in world.members.list(max_, "shop")] == ["acme/dev", "bob", "max"]
    world.members.remove(max_, "bob", "shop")
    for refused in (
        lambda: world.members.add(max_, "bob", Role.VIEWER, "till"),
        lambda: world.members.add(max_, "bob", Role.VIEWER),
        lambda: world.members.add(max_, "bob", Role.VIEWER, "shop", "max@example.com"),
        lambda: world.members.remove(max_, "bob"),
        lambda: world.members.list(max_),
        lambda: world.members.list(max_, "till"),
    ):
        with pytest.raises(Refused):
            refused()
    assert len(world.events(Kind.ACCESS_REFUSED)) == 6
    with pytest.raises(Refused) as refused_everywhere:
        world.members.add(max_, "bob", Role.VIEWER)
    assert refused_everywhere.value.hint.startswith("It takes an admin"), "they have a role, but no such one"
    assert code(lambda: world.members.add(max_, "bob", Role.ADMIN, "shop")) == "admin_everywhere"
    with pytest.raises(Refused):
        world.members.add(world.person("eve", shop=Role.DEVELOPER), "eve", Role.MAINTAINER, "shop")


@pytest.mark.parametrize("nothing", ["*", "", "none"])
def test_no_word_stands_for_all_projects(world: World, nothing: str) -> None:
    max_ = world.person("max", everywhere=Role.MAINTAINER)
    world.members.add(ROOT, "boss", Role.ADMIN)
    for call in (
        lambda: world.members.add(max_, "max", Role.MAINTAINER, nothing),
        lambda: world.members.add(max_, "boss", Role.VIEWER, nothing),
        lambda: world.members.add(max_, "ops", Role.MAINTAINER, nothing, group=True),
        lambda: world.members.remove(max_, "boss", nothing),
    ):
        assert code(call) == "unknown_project"
    roles = {one.name: one.roles for one in world.members.list(ROOT)}
    assert roles == {"boss": {EVERYWHERE: Role.ADMIN}, "max": {EVERYWHERE: Role.MAINTAINER}}


def test_nobody_gives_more_than_what_they_came_with(world: World) -> None:
    world.person("max", shop=Role.MAINTAINER)
    world.person("root2", everywhere=Role.ADMIN)
    members = NewToken(name="m", member="max", permissions=[Permission.MEMBERS, Permission.READ, Permission.OWN_TOKENS])
    narrow = world.authenticated(world.tokens.create(ROOT, members).token)
    assert world.members.add(narrow, "eve", Role.VIEWER, "shop").roles == {"shop": Role.VIEWER}
    with pytest.raises(Refused) as refused:
        world.members.add(narrow, "eve", Role.MAINTAINER, "shop")
    assert "narrowed" in refused.value.hint
    operate = NewToken(name="o", member="root2", permissions=[Permission.PLATFORM])
    with pytest.raises(Refused):
        world.members.add(world.authenticated(world.tokens.create(ROOT, operate).token), "eve", Role.ADMIN)
    assert len(world.events(Kind.ACCESS_REFUSED)) == 2
    assert [one.roles for one in world.members.list(ROOT, "shop") if one.name == "eve"] == [{"shop": Role.VIEWER}]


def test_maintainers_are_not_told_of_other_projects(world: World) -> None:
    max_ = world.person("max", shop=Role.MAINTAINER)
    world.person("bob", till=Role.MAINTAINER)
    world.members.add(ROOT, "ops", Role.DEVELOPER, "till", group=True)
    world.members.add(ROOT, "ops", Role.VIEWER, group=True)
    for told in (
        world.members.add(max_, "bob", Role.VIEWER, "shop"),
        world.members.add(max_, "ops", Role.DEVELOPER, "shop", group=True),
        *world.members.list(max_, "shop"),
    ):
        assert "till" not in told.roles
    assert world.members.list(ROOT, "till")[0].roles == {"till": Role.MAINTAINER}


@pytest.mark.parametrize("name", ["operator", "Bootstrap", "platform", "(nobody)", "ｏperator"])
def test_nobody_is_called_like_the_platform_itself(world: World, name: str) -> None:
    assert code(lambda: world.members.add(ROOT, name, Role.VIEWER)) == "reserved_name"
    assert code(lambda: world.tokens.create(ROOT, NewToken(name=name, role=Role.VIEWER))) == "reserved_name"
    kept: list[str] = []
    world.tokens.recover("root", kept.append)
    assert world.authenticated(kept[0]).may(Permission.PLATFORM), "the way back in is never taken"


def test_no_token_tells_whether_there_is_a_project(world: World) -> None:
    ada = world.person("ada", shop=Role.VIEWER)
    for project in ("till", "none"):
        with pytest.raises(Refused) as refused:
            world.tokens.create(ada, NewToken(name="x", projects=["shop", project]))
        assert refused.value.code == "refused"
        assert refused.value.sentence.replace(project, "…").endswith("in …: it needs the permission own:tokens.")
    assert [one.project for one in world.events(Kind.ACCESS_REFUSED)] == ["till", "none"]
    assert world.tokens.create(ada, NewToken(name="x", projects=["shop"])).projects == ["shop"]


@pytest.mark.parametrize("name", ["a/b", ".", "..", "/"])
def test_names_that_no_address_can_hold(world: World, name: str) -> None:
    ada = world.person("ada", shop=Role.VIEWER)
    assert code(lambda: world.members.add(ROOT, name, Role.VIEWER)) == "bad_name"
    assert code(lambda: world.tokens.create(ada, NewToken(name=name))) == "bad_name"
    assert code(lambda: world.tokens.create(ROOT, NewToken(name=name, role=Role.VIEWER))) == "bad_name"


@pytest.mark.parametrize("wrong", [{"project": "a\x00"}, {"name": "\x00"}, {"email": "\x00"}])
def test_what_no_database_keeps_is_no_member(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        NewMember.model_validate({"name": "ada", "role": "viewer", **wrong})


@pytest.mark.parametrize("wrong", [{"projects": ["a\x00"]}, {"member": "\x00"}, {"name": "\x00"}])
def test_what_no_database_keeps_is_no_token(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewToken.model_validate({"name": "x", **wrong})


def test_who_is_shut_out_in_the_same_moment_stays_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    max_ = world.person("max", shop=Role.MAINTAINER)
    world.person("bob", shop=Role.DEVELOPER)
    look = Gate.require

    def looked(gate: Gate, actor: Actor, permission: Permission, **where: Any) -> None:
        look(gate, actor, permission, **where)
        if actor is max_ and permission is Permission.READ:
            world.members.remove(ROOT, "bob")  # between the look and the deed

    monkeypatch.setattr(Gate, "require", looked)
    with pytest.raises(Refused):
        world.members.add(max_, "bob", Role.VIEWER, "shop")
    assert "bob" not in [one.name for one in world.members.list(ROOT)]
    assert [one.detail["permission"] for one in world.events(Kind.ACCESS_REFUSED)] == ["platform:operate"]


def test_who_was_shut_out_is_let_in_by_admins_alone(world: World) -> None:
    max_ = world.person("max", shop=Role.MAINTAINER)
    world.person("bob", shop=Role.DEVELOPER)
    world.members.remove(ROOT, "bob")
    assert "bob" not in [one.name for one in world.members.list(ROOT)]
    with pytest.raises(Refused):
        world.members.add(max_, "bob", Role.VIEWER, "shop")
    assert code(lambda: world.tokens.create(ROOT, NewToken(name="x", member="bob"))) == "disabled"
    assert world.members.add(ROOT, "bob", Role.VIEWER, "shop").roles == {"shop": Role.VIEWER}


def test_the_register_tells_who_gave_what(world: World) -> None:
    world.members.add(ROOT, "ada", Role.VIEWER, "shop", "ada@example.com")
    world.members.add(ROOT, "ada", Role.DEVELOPER, "shop")
    world.members.add(ROOT, "acme/ops", Role.ADMIN, group=True)
    world.members.remove(ROOT, "ada", "shop")
    world.members.remove(ROOT, "acme/ops", group=True)
    world.members.remove(ROOT, "ada")
    changed = [(one.actor, one.proof, one.project, one.detail) for one in world.events(Kind.MEMBER_CHANGED)]
    assert changed == [
        ("root", "token root", "shop", {"member": "ada", "role": "viewer", "email": "ada@example.com"}),
        ("root", "token root", "shop", {"member": "ada", "role": "developer", "before": "viewer"}),
        ("root", "token root", None, {"group": "acme/ops", "role": "admin"}),
        ("root", "token root", "shop", {"member": "ada", "before": "developer"}),
        ("root", "token root", None, {"group": "acme/ops", "before": "admin"}),
    ]
    assert [one.detail for one in world.events(Kind.MEMBER_REMOVED)] == [{"member": "ada"}]


def test_what_cannot_be_given_or_taken(world: World) -> None:
    assert code(lambda: world.members.add(ROOT, " ada", Role.VIEWER)) == "bad_name"
    assert code(lambda: world.members.add(ROOT, "a\tb", Role.VIEWER)) == "bad_name"
    assert code(lambda: world.members.add(ROOT, "g", Role.VIEWER, email="a@example.com", group=True)) == "no_email"
    assert code(lambda: world.members.add(ROOT, "ada", Role.VIEWER, "none")) == "unknown_project"
    assert world.store.tables.people.members == {}, "all or nothing"
    assert code(lambda: world.members.remove(ROOT, "ada")) == "unknown_member"
    assert code(lambda: world.members.remove(ROOT, "g", group=True)) == "no_role"
    world.members.add(ROOT, "ada", Role.VIEWER)
    assert code(lambda: world.members.remove(ROOT, "ada", "shop")) == "no_role"


# --- tokens ---


def test_people_make_list_and_revoke_their_own(world: World) -> None:
    ada, bob = world.person("ada", shop=Role.VIEWER), world.person("bob", shop=Role.VIEWER)
    made = world.tokens.create(ada, NewToken(name="laptop"))
    assert (made.member, made.role, made.projects) == ("ada", None, None)
    assert made.expires_at is not None
    assert world.authenticated(made.token).member == ada.member
    assert [(one.name, one.member) for one in world.tokens.list(ada)] == [("laptop", "ada"), ("of-ada", "ada")]
    assert not any(made.token in str(one) for one in world.tokens.list(ada))
    for refused in (
        lambda: world.tokens.revoke(bob, "laptop", "ada"),
        lambda: world.tokens.revoke(bob, "laptop"),
        lambda: world.tokens.create(bob, NewToken(name="x", member="ada")),
        lambda: world.tokens.create(bob, NewToken(name="x", role=Role.VIEWER)),
    ):
        with pytest.raises(Refused):
            refused()
    world.tokens.revoke(ada, "laptop")
    assert code(lambda: world.authenticated(made.token)) == "unauthenticated"
    world.tokens.revoke(ROOT, "of-bob", "bob")
    assert len(world.tokens.list(ROOT)) == 1


def test_a_machines_token_has_a_role_where_it_was_given(world: World) -> None:
    ci = world.tokens.create(ROOT, NewToken(name="ci", role=Role.DEVELOPER, projects=["shop"]))
    actor = world.authenticated(ci.token)
    assert (actor.name, actor.member, ci.expires_at) == ("ci", None, None)
    assert actor.may(Permission.DEPLOY, "shop")
    assert not actor.may(Permission.READ, "till")
    everywhere = world.authenticated(world.tokens.create(ROOT, NewToken(name="all", role=Role.VIEWER)).token)
    assert everywhere.may(Permission.READ)
    assert [one.name for one in world.tokens.list(actor)] == []
    world.tokens.revoke(ROOT, "ci")
    assert code(lambda: world.authenticated(ci.token)) == "unauthenticated"


def test_a_narrow_token_makes_no_wider_one(world: World) -> None:
    world.person("ada", everywhere=Role.DEVELOPER)
    allowed = [Permission.READ, Permission.OWN_TOKENS]
    narrow = world.tokens.create(
        ROOT, NewToken(name="ci", member="ada", projects=["shop"], permissions=allowed, days=5)
    )
    actor = world.authenticated(narrow.token)
    assert not actor.may(Permission.DEPLOY, "shop")
    assert code(lambda: world.tokens.create(actor, NewToken(name="x", projects=["shop", "till"]))) == "wider_scope"
    wider = NewToken(name="x", permissions=[*allowed, Permission.DEPLOY])
    assert code(lambda: world.tokens.create(actor, wider)) == "wider_scope"
    made = world.tokens.create(actor, NewToken(name="x", permissions=[Permission.READ], days=300))
    assert (made.projects, made.permissions, made.expires_at) == (["shop"], [Permission.READ], narrow.expires_at)
    with pytest.raises(Refused):
        world.tokens.create(world.authenticated(made.token), NewToken(name="y"))


def test_a_token_expires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = world.person("ada", shop=Role.VIEWER)
    made = world.tokens.create(ada, NewToken(name="short", days=1))
    usual = world.tokens.create(ada, NewToken(name="usual"))
    assert made.expires_at
    assert usual.expires_at
    assert timedelta(0) <= datetime.now(UTC) + timedelta(PERSONAL_DAYS) - usual.expires_at < timedelta(minutes=1)
    assert world.authenticated(made.token).until == made.expires_at

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1)

    monkeypatch.setattr("branchline.operations.tokens.datetime", Later)
    with pytest.raises(Unauthenticated) as expired:
        world.authenticated(made.token)
    assert expired.value.code == "token_expired"
    assert world.authenticated(usual.token).name == "ada"


def test_what_no_token_can_be(world: World) -> None:
    assert code(lambda: world.tokens.create(ROOT, NewToken(name="x"))) == "whose_token"
    both = NewToken(name="x", member="ada", role=Role.VIEWER)
    assert code(lambda: world.tokens.create(ROOT, both)) == "whose_token"
    assert code(lambda: world.tokens.create(ROOT, NewToken(name=" x", role=Role.VIEWER))) == "bad_name"
    unknown = NewToken(name="x", role=Role.VIEWER, projects=["none"])
    assert code(lambda: world.tokens.create(ROOT, unknown)) == "unknown_project"
    narrow_admin = NewToken(name="x", role=Role.ADMIN, projects=["shop"])
    assert code(lambda: world.tokens.create(ROOT, narrow_admin)) == "admin_everywhere"
    assert code(lambda: world.tokens.create(ROOT, NewToken(name="x", member="nobody"))) == "unknown_member"
    world.members.add(ROOT, "ada", Role.VIEWER)
    assert code(lambda: world.tokens.create(ROOT, NewToken(name="ada", role=Role.VIEWER))) == "name_taken"


def test_the_operator_gets_back_in(world: World) -> None:
    kept: list[str] = []
    assert world.tokens.bootstrap(kept.append)
    assert not world.tokens.bootstrap(kept.append)
    world.tokens.recover("root", kept.append)
    world.tokens.recover("root", kept.append)
    first, replaced, newest = kept
    assert world.authenticated(first).may(Permission.PLATFORM)
    assert world.authenticated(newest).may(Permission.PLATFORM)
    assert code(lambda: world.authenticated(replaced)) == "unauthenticated"
    told = [(one.actor, one.proof) for one in world.events(Kind.TOKEN_CREATED)]
    assert told[1:] == [("operator", "account root of the platform's machine")] * 2
    assert [one.detail["token"] for one in world.events(Kind.TOKEN_REVOKED)] == ["operator"]


def test_the_first_token_does_not_come_back(world: World) -> None:
    kept: list[str] = []
    world.tokens.bootstrap(kept.append)
    admin = world.authenticated(kept[0])
    world.members.add(admin, "ada", Role.ADMIN, email="ada@example.com")
    world.tokens.revoke(admin, "bootstrap")
    assert not world.tokens.bootstrap(kept.append), "there are admins, and none of them has a token"
    assert len(kept) == 1


# --- the register ---


def test_who_asks_on_and_on_fills_no_register() -> None:
    store, now = MemoryStore(), [0.0]
    gate = Gate(store, lambda: now[0])

    def refused(name: str, times: int) -> list[Any]:
        before = len(store.tables.events)
        for _ in range(times):
            with pytest.raises(Refused):
                gate.require(Actor(name, "token x"), Permission.READ, project="shop")
        return [event.detail.get("untold") for _, event in store.tables.events[before:]]

    assert refused("eve", 500) == [None] * MOST_LINES
    assert refused("bob", 1) == [None], "others have lines of their own"
    now[0] += WINDOW
    assert refused("eve", 2) == [500 - MOST_LINES, None]
    now[0] += WINDOW
    assert refused("eve", 1) == [None]


def test_tokens_and_what_proves_a_login_are_not_in_what_is_printed_of_them(world: World) -> None:
    ada = world.person("ada", shop=Role.VIEWER)
    made = world.tokens.create(ada, NewToken(name="laptop"))
    said = [
        made,
        DeviceToken(name="x", token="s3cret"),
        DeviceCodes(
            device_code="s3cret",
            user_code="s3cret",
            verification_uri="u",
            verification_uri_complete="s3cret",
            expires_in=1,
            interval=1,
        ),
        DevicePoll(device_code="s3cret"),
        Begun("s3cret", "s3cret"),
        Entered("s3cret", "ada", "/"),
        Returned("oidc", "s3cret", "s3cret", "", "", ""),
        Attempt("s3cret", "s3cret", Secret("s3cret"), ""),
    ]
    assert made.token not in f"{said}{made}"
    assert "s3cret" not in f"{said}" + "".join(map(str, said))


def test_the_register_never_holds_a_token(world: World) -> None:
    ada = world.person("ada", shop=Role.VIEWER)
    made = world.tokens.create(ada, NewToken(name="laptop", projects=["shop"], days=3))
    world.tokens.revoke(ada, "laptop")
    assert made.token not in str(world.store.tables.events)
    revoked = world.events(Kind.TOKEN_REVOKED)[0].detail
    assert (revoked["token"], revoked["member"], revoked["projects"]) == ("laptop", "ada", ["shop"])


@pytest.mark.parametrize("presented", ["", "bl_", "bl_x", "x" * 900, "bl_ü", "Bearer bl_x"])
def test_what_is_no_token(world: World, presented: str) -> None:
    with pytest.raises(Unauthenticated):
        world.authenticated(presented)


def test_whoever_has_no_role_at_all_is_told(world: World) -> None:
    world.members.add(ROOT, "new", Role.VIEWER, "shop")
    token = world.tokens.create(ROOT, NewToken(name="t", member="new")).token
    world.members.remove(ROOT, "new", "shop")
    with pytest.raises(Refused) as refused:
        world.tokens.list(world.authenticated(token))
    assert "member add" in refused.value.hint
    with pytest.raises(BadInput):
        world.members.add(ROOT, "", Role.VIEWER)
