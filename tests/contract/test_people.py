"""Members, roles and tokens: the same cases in memory and on the real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from branchline.domain.access import EVERYWHERE, Permission, Role, Scope
from branchline.domain.errors import Conflict, NotFound, Refused
from branchline.people_records import GROUPS_COUNT_FOR, Grant, Member
from branchline.records import Store
from branchline.store import tables as t
from branchline.store.database import SqlStore


def new(prefix: str = "m") -> str:
    """A name that nobody in a store that is shared with other tests has."""
    return prefix + uuid4().hex[:12]


@pytest.fixture
def project(store: Store) -> str:
    name = new("p")
    with store.transaction() as records:
        records.projects.add(name, "/srv/none.git")
    return name


def test_a_member_is_made_once(store: Store) -> None:
    name = new()
    with store.transaction() as records:
        first = records.members.add(name, f"{name}@example.com")
        assert records.members.add(name) == first
        assert records.members.get(name) == first
        assert records.members.by_id(first.id) == first
        assert first in records.members.all()
        with pytest.raises(NotFound):
            records.members.get(new())
        with pytest.raises(Conflict, match="address"):
            records.members.add(new(), f"{name.upper()}@example.com")


def test_who_logs_in_is_known_again(store: Store) -> None:
    name, issuer = new(), "https://id.example.com"
    with store.transaction() as records:
        first = records.members.sign_in(issuer, f"1-{name}", name, "", ["dev", "ops"])
        again = records.members.sign_in(issuer, f"1-{name}", "another name", "", ["ops"])
        assert (again.id, again.name, again.groups) == (first.id, name, ("ops",))
        assert again.last_login_at is not None
        other = records.members.sign_in(issuer, f"2-{name}", name, "", [])
        assert (other.id != first.id, other.name) == (True, f"{name}-2")
        elsewhere = records.members.sign_in("https://other.example.com", f"1-{name}", name, "", [])
        assert elsewhere.name == f"{name}-3", "another provider's word is another person"


def test_who_was_added_by_address_is_met_at_the_first_login(store: Store) -> None:
    name, issuer = new(), "https://id.example.com"
    email = f"{name}@example.com"
    with store.transaction() as records:
        added = records.members.add(name, email)
        met = records.members.sign_in(issuer, name, "somebody", email.upper(), [])
        assert (met.id, met.name) == (added.id, name)
        stranger = records.members.sign_in(issuer, f"x{name}", f"x{name}", email, [])
        assert stranger.id != added.id, "an address is claimed once"
        assert stranger.email == ""


def test_who_is_shut_out_has_nothing_left(store: Store, project: str) -> None:
    name, digest = new(), uuid4().hex
    with store.transaction() as records:
        member = records.members.sign_in("https://id.example.com", name, name, "", [])
        records.members.grant(Grant(name, project, Role.MAINTAINER))
        records.tokens.add("laptop", digest, member=member.id, scope=Scope())
        records.members.disable(member)
        assert records.members.grants_of(member.id) == {}
        assert records.tokens.by_digest(digest) is None
        assert member.name not in [one.name for one in records.members.all()]
    with store.transaction() as records, pytest.raises(Refused) as refused:
        records.members.sign_in("https://id.example.com", name, name, "", [])
    assert refused.value.code == "disabled"
    with store.transaction() as records:
        assert records.members.add(name).id == member.id
        assert records.members.sign_in("https://id.example.com", name, name, "", []).id == member.id


def test_roles_are_replaced_and_withdrawn(store: Store, project: str) -> None:
    name = new()
    with store.transaction() as records:
        member = records.members.add(name)
        assert records.members.grant(Grant(name, project, Role.VIEWER)) is None
        assert records.members.grant(Grant(name, project, Role.DEVELOPER)) is Role.VIEWER
        assert records.members.grant(Grant(name, EVERYWHERE, Role.VIEWER)) is None
        assert records.members.grants_of(member.id) == {project: Role.DEVELOPER, EVERYWHERE: Role.VIEWER}
        mine = [one for one in records.members.grants() if one.holder == name]
        assert mine == [Grant(name, EVERYWHERE, Role.VIEWER), Grant(name, project, Role.DEVELOPER)]
        assert records.members.withdraw(name, project, is_group=False) is Role.DEVELOPER
        assert records.members.withdraw(name, project, is_group=False) is None
        assert records.members.grants_of(member.id) == {EVERYWHERE: Role.VIEWER}
    for grant in (Grant(new(), project, Role.VIEWER), Grant(name, new(), Role.VIEWER)):
        with store.transaction() as records, pytest.raises(NotFound):
            records.members.grant(grant)


def test_groups_give_roles_to_those_in_them(store: Store, project: str) -> None:
    name, group = new(), new("g")
    with store.transaction() as records:
        member = records.members.sign_in("https://id.example.com", name, name, "", [group, new("g")])
        records.members.grant(Grant(group, project, Role.MAINTAINER, is_group=True))
        records.members.grant(Grant(name, project, Role.VIEWER))
        assert records.members.grants_of(member.id) == {project: Role.MAINTAINER}, "the higher counts"
        records.members.sign_in("https://id.example.com", name, name, "", [])
        assert records.members.grants_of(member.id) == {project: Role.VIEWER}, "who left the group lost its role"
        assert records.members.withdraw(group, project, is_group=True) is Role.MAINTAINER


def test_a_token_is_found_by_its_digest(store: Store, project: str) -> None:
    name, digest = new("t"), uuid4().hex
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    scope = Scope(frozenset({project}), frozenset({Permission.READ}))
    with store.transaction() as records:
        made = records.tokens.add(name, digest, role=Role.DEVELOPER, scope=scope, expires_at=end)
        assert (made.name, made.role, made.scope, made.expires_at) == (name, Role.DEVELOPER, scope, end)
        assert (made.member, made.last_used_at) == (None, None)
        found = records.tokens.by_digest(digest)
        assert found is not None
        assert (replace(found[0], last_used_at=None), found[1]) == (made, {})
        assert records.tokens.by_digest("nobody's") is None
    with store.transaction() as records:
        used = records.tokens.get(name, None)
        assert used.last_used_at is not None
        assert used in records.tokens.all()
        records.tokens.remove(used)
        assert records.tokens.by_digest(digest) is None
        with pytest.raises(NotFound):
            records.tokens.get(name, None)


def test_a_members_token_comes_with_their_roles_of_now(store: Store, project: str) -> None:
    name, group, digest = new(), new("g"), uuid4().hex
    with store.transaction() as records:
        member = records.members.sign_in("https://id.example.com", name, name, "", [group])
        records.tokens.add("laptop", digest, member=member.id, scope=Scope())
        first = records.tokens.by_digest(digest)
        assert first is not None
        assert first[1] == {}
        records.members.grant(Grant(name, project, Role.VIEWER))
        records.members.grant(Grant(group, project, Role.MAINTAINER, is_group=True))
        records.members.grant(Grant(name, EVERYWHERE, Role.DEVELOPER))
        records.members.grant(Grant(new("g"), project, Role.ADMIN, is_group=True))
        found = records.tokens.by_digest(digest)
        assert found is not None
        assert (found[0].member, found[0].member_name, found[0].role) == (member.id, name, None)
        assert found[1] == records.members.grants_of(member.id)
        assert found[1] == {project: Role.MAINTAINER, EVERYWHERE: Role.DEVELOPER}


def test_everybody_names_their_own_tokens(store: Store) -> None:
    with store.transaction() as records:
        ada, bob = records.members.add(new()), records.members.add(new())
        for member in (ada, bob):
            records.tokens.add("laptop", uuid4().hex, member=member.id, scope=Scope())
        assert [one.member_name for one in records.tokens.all([ada.id])] == [ada.name]
        assert records.tokens.get("laptop", bob.id).member == bob.id
    with store.transaction() as records, pytest.raises(Conflict) as taken:
        records.tokens.add("laptop", uuid4().hex, member=ada.id, scope=Scope())
    assert taken.value.code == "token_exists"


def test_no_machine_is_called_like_a_person(store: Store) -> None:
    name, machine = new(), new("t")
    with store.transaction() as records:
        records.members.add(name)
        records.tokens.add(machine, uuid4().hex, role=Role.VIEWER, scope=Scope())
    with store.transaction() as records, pytest.raises(Conflict) as taken:
        records.tokens.add(name, uuid4().hex, role=Role.VIEWER, scope=Scope())
    assert taken.value.code == "name_taken"
    with store.transaction() as records, pytest.raises(Conflict) as taken:
        records.members.add(machine)
    assert taken.value.code == "name_taken"
    with store.transaction() as records:
        met = records.members.sign_in("https://id.example.com", machine, machine, "", [])
        assert met.name == f"{machine}-2"


def test_two_first_logins_at_once_make_one_member(store: Store) -> None:
    name, met = new(), []

    def log_in() -> None:
        with store.transaction() as records:
            met.append(records.members.sign_in("https://id.example.com", name, name, "", []).id)

    threads = [threading.Thread(target=log_in) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == 4
    assert len(set(met)) == 1


def test_who_was_disabled_gets_in_by_no_other_door(store: Store, project: str) -> None:
    name, group = new(), new("g")
    email = f"{name}@example.com"
    with store.transaction() as records:
        member = records.members.add(name, email)
        records.members.sign_in("https://id.example.com", name, name, email, [group])
        records.members.grant(Grant(group, project, Role.MAINTAINER, is_group=True))
        records.members.disable(member)
    with store.transaction() as records, pytest.raises(Refused) as refused:
        records.members.sign_in("https://other.example.com", name, name, email.upper(), [group])
    assert refused.value.code == "disabled"
    with store.transaction() as records, pytest.raises(Refused):
        records.members.add(name, let_in_again=False)
    with store.transaction() as records, pytest.raises(Conflict) as conflict:
        records.tokens.add("late", uuid4().hex, member=member.id, scope=Scope())
    assert conflict.value.code == "disabled"
    with store.transaction() as records:
        again = records.members.add(name)
        assert again.groups == (), "groups are those of a login to come"
        assert records.members.grants_of(member.id) == {}


def test_no_two_names_look_like_one(store: Store) -> None:
    name, machine = new(), new("t")
    full = "ｍ" + name[1:]  # the same letters to a reader
    with store.transaction() as records:
        records.members.add(name)
        records.tokens.add(machine, uuid4().hex, role=Role.VIEWER, scope=Scope())
    for taken in (name.upper(), full, machine.upper()):
        with store.transaction() as records, pytest.raises(Conflict) as conflict:
            records.members.add(taken)
        assert conflict.value.code == "name_taken"
    with store.transaction() as records, pytest.raises(Conflict):
        records.tokens.add(name.upper(), uuid4().hex, role=Role.VIEWER, scope=Scope())
    with store.transaction() as records:
        met = records.members.sign_in("https://id.example.com", name, full, "", [])
        assert met.name == f"{full}-2"


def test_a_name_that_is_made_unique_is_no_longer_than_names_are(store: Store) -> None:
    long = new() + "x" * 87
    with store.transaction() as records:
        for number in ("", "-2", "-3"):
            met = records.members.sign_in("https://id.example.com", f"{long}{number}", long, "", [])
            assert met.name == long[: 100 - len(number)] + number


def together(*calls: Callable[[], object]) -> list[BaseException]:
    """Make calls at one time; give what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        start.wait()
        try:
            call()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_a_group_is_given_two_roles_at_once(store: Store, project: str) -> None:
    group = new("g")

    def give() -> None:
        with store.transaction() as records:
            records.members.grant(Grant(group, project, Role.VIEWER, is_group=True))

    assert together(*[give] * 6) == []
    with store.transaction() as records:
        assert len([one for one in records.members.grants() if one.holder == group]) == 1


def test_a_token_that_is_made_while_its_member_is_disabled(store: Store) -> None:
    """In whichever order: nothing that is good is left."""
    for _ in range(8):
        name, digest = new(), uuid4().hex
        with store.transaction() as records:
            member = records.members.add(name)

        def make(member: Member = member, digest: str = digest) -> None:
            with store.transaction() as records:
                assert records.members.by_id(member.id).disabled_at is None or digest
                time.sleep(0.01)
                records.tokens.add("laptop", digest, member=member.id, scope=Scope())

        def disable(member: Member = member) -> None:
            with store.transaction() as records:
                time.sleep(0.01)
                records.members.disable(member)

        assert all(isinstance(one, Conflict) for one in together(make, disable))
        with store.transaction() as records:
            records.members.add(name)
            assert records.tokens.by_digest(digest) is None
            assert records.tokens.all([member.id]) == []


def test_groups_of_a_login_long_ago_count_no_more(store: Store, project: str) -> None:
    name, group, digest = new(), new("g"), uuid4().hex
    with store.transaction() as records:
        member = records.members.sign_in("https://id.example.com", name, name, "", [group])
        records.members.grant(Grant(group, project, Role.MAINTAINER, is_group=True))
        records.members.grant(Grant(name, EVERYWHERE, Role.VIEWER))
        records.tokens.add("laptop", digest, member=member.id, scope=Scope())
        assert records.members.grants_of(member.id) == {project: Role.MAINTAINER, EVERYWHERE: Role.VIEWER}
    long_ago = datetime.now(UTC) - GROUPS_COUNT_FOR - timedelta(hours=1)
    if isinstance(store, SqlStore):
        with store.engine.begin() as db:
            db.execute(t.member.update().where(t.member.c.id == member.id).values(last_login_at=long_ago))
    else:
        people = store.tables.people  # type: ignore[attr-defined]
        people.members[member.id] = replace(people.members[member.id], last_login_at=long_ago)
    with store.transaction() as records:
        assert records.members.grants_of(member.id) == {EVERYWHERE: Role.VIEWER}
        found = records.tokens.by_digest(digest)
        assert found is not None
        assert found[1] == {EVERYWHERE: Role.VIEWER}
        records.members.sign_in("https://id.example.com", name, name, "", [group])
        assert records.members.grants_of(member.id)[project] is Role.MAINTAINER
