"""Reading the register: who is shown what of it."""

from __future__ import annotations

import pytest

from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import Kind, Wanted
from branchline.domain.errors import Refused
from branchline.operations.gate import Gate
from branchline.operations.register import Audit
from branchline.wire_audit import AuditLine
from tests.fakes.notary import FakeNotary
from tests.fakes.store import MemoryStore

ROOT = Actor("root", "token", {EVERYWHERE: Role.ADMIN})
MAX = Actor("max", "token", {"shop": Role.MAINTAINER})
BOB = Actor("bob", "token", {"shop": Role.DEVELOPER})


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    with store.transaction() as records:
        for name in ("shop", "till"):
            records.projects.add(name, f"/srv/{name}.git")
            for place in ("develop", "production"):
                detail = {"version": 3, "set": ["STRIPE_KEY", "B"], "hidden": [], "removed": ["OLD"]}
                records.register.add(ROOT.event(Kind.CONFIG_CHANGED, name, place, detail=detail))
        records.register.add(
            ROOT.event(Kind.STAGE_ENDED, "shop", "production", 7, {"keys": ["STRIPE_KEY"], "commits": 2})
        )
        records.register.add(ROOT.event(Kind.TOKEN_CREATED, detail={"token": "ci"}))
    return store


def seen(store: MemoryStore, actor: Actor, **wanted: str) -> list[AuditLine]:
    return list(Audit(store, Gate(store), FakeNotary()).list(actor, Wanted(**wanted)).items)


def test_names_of_productions_keys_are_for_its_maintainers(store: MemoryStore) -> None:
    stage, production, develop = seen(store, BOB)
    assert production.detail == {"version": 3, "set": 2, "hidden": 0, "removed": 1}
    assert stage.detail == {"keys": 1, "commits": 2}
    assert develop.detail["set"] == ["STRIPE_KEY", "B"]
    assert [one.detail for one in seen(store, MAX)][:2] == [
        {"keys": ["STRIPE_KEY"], "commits": 2},
        {"version": 3, "set": ["STRIPE_KEY", "B"], "hidden": [], "removed": ["OLD"]},
    ]


def test_nobody_finds_out_by_looking_for_a_name(store: MemoryStore) -> None:
    assert [one.environment for one in seen(store, BOB, text="stripe_key")] == ["develop"]
    assert len(seen(store, MAX, text="stripe_key")) == 3


def test_everybody_sees_their_projects_and_admins_the_platform(store: MemoryStore) -> None:
    assert {one.project for one in seen(store, BOB)} == {"shop"}
    assert {one.project for one in seen(store, ROOT)} == {"shop", "till", None}
    with pytest.raises(Refused):
        seen(store, BOB, project="till")
    with pytest.raises(Refused):
        seen(store, Actor("eve", "token"))
