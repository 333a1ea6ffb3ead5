"""Config from the side of people: layers, provenance, what is recorded, and crashes between two stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from branchline.config_records import Done
from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import Kind
from branchline.domain.config import Secret
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Destination, Environment, Inherits, Tier, tier_of, usually_inherits
from branchline.domain.errors import BadInput, BranchlineError, Conflict, NotFound, PlatformBroke, Refused
from branchline.domain.layers import COMMON, HIDDEN, Layer
from branchline.operations import config_ledger
from branchline.operations.config import Settings
from branchline.operations.config_ledger import ConfigLedger
from branchline.operations.gate import Gate
from branchline.operations.provenance import Provenance
from branchline.operations.requests import Deployments
from branchline.operations.views import Views
from branchline.ports import Revision
from tests.fakes.config import FakeConfigStore, FakeConfigWriter
from tests.fakes.source import FakeSource
from tests.fakes.store import MemoryStore

ADA = Actor("ada", "token", {EVERYWHERE: Role.ADMIN})
BOB = Actor("bob", "token", {EVERYWHERE: Role.DEVELOPER})
MAX = Actor("max", "token", {"shop": Role.MAINTAINER})
EVE = Actor("eve", "token", {EVERYWHERE: Role.VIEWER})


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.configs = FakeConfigStore()
        self.writer = self.configs.writer()
        with self.store.transaction() as records:
            self.project = records.projects.add("shop", "/srv/shop.git")

    @property
    def settings(self) -> Settings:
        return Settings(self.store, Gate(self.store), self.writer, ConfigLedger(self.store, self.writer))

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.store, Gate(self.store), self.writer, ConfigLedger(self.store, self.writer))

    def set(self, environment: str, actor: Actor = ADA, **values: str | None) -> int:
        return self.settings.change(actor, "shop", environment, values).version

    def hide(self, environment: str, *keys: str) -> int:
        return self.settings.change(ADA, "shop", environment, {}, keys).version

    def environment(self, name: str, inherits: Inherits | None = None) -> Environment:
        with self.store.transaction() as records:
            place = Destination(name, tier_of(name), inherits or usually_inherits(name))
            return records.environments.ensure(self.project, place)

    def live(self, name: str, config: dict[str, int]) -> Environment:
        place = self.environment(name)
        with self.store.transaction() as records:
            revision = Revision(f"refs/heads/{name}", "a" * 40, "")
            asked = records.deployments.add(place, revision, actor="ada", trigger=Trigger.CLI, reason="")
            records.deployments.note_config(asked.id, config)
            records.deployments.finish(asked.id, State.SUCCEEDED)
            records.environments.set_live(place, asked.id)
            return records.environments.get("shop", name)

    def events(self, kind: Kind) -> list[Any]:
        return [event for _, event in self.store.tables.events if event.kind is kind]


@pytest.fixture
def world() -> World:
    return World()


def code(call: Any) -> str:
    with pytest.raises(BranchlineError) as caught:
        call()
    return caught.value.code


# --- layers ---


def test_keys_are_listed_with_the_layer_that_answers(world: World) -> None:
    world.set(COMMON, A="c", B="c", C="c")
    world.set("develop", B="d", C="d", D="d")
    world.set("login", C="l")
    world.hide("login", "D", "A")
    listed = world.settings.keys(EVE, "shop", "login")
    assert listed.keys == {"B": "develop", "C": "login"}
    assert listed.versions == {COMMON: 1, "develop": 1, "login": 2}
    got = world.settings.get(ADA, "shop", "login", "B")
    assert (got.value, got.layer, got.version) == ("d", "develop", 1)
    assert code(lambda: world.settings.get(ADA, "shop", "login", "D")) == "unknown_key"
    exported = world.settings.export(ADA, "shop", "login")
    assert exported.values == {"B": "d", "C": "l"}
    assert exported.hidden == []
    own = world.settings.export(ADA, "shop", "login", own=True)
    assert (own.values, own.hidden) == ({"C": "l"}, ["A", "D"])


def test_the_projects_own_layer_stands_alone(world: World) -> None:
    world.set(COMMON, A="c")
    assert world.settings.keys(EVE, "shop", COMMON).keys == {"A": COMMON}
    assert code(lambda: world.hide(COMMON, "A")) == "nothing_beneath"


def test_what_the_manifest_said_decides_what_is_inherited(world: World) -> None:
    world.set(COMMON, A="c")
    world.set("develop", B="d")
    assert set(world.settings.keys(EVE, "shop", "qa").keys) == {"A", "B"}
    world.environment("qa", Inherits.COMMON)
    assert set(world.settings.keys(EVE, "shop", "qa").keys) == {"A"}
    assert set(world.settings.keys(EVE, "shop", "staging").keys) == {"A"}
    assert world.settings.keys(ADA, "shop", "production").keys == {}


def test_a_key_that_is_taken_out_shows_what_lies_beneath(world: World) -> None:
    world.set("develop", A="d")
    world.set("login", A="l", B="l")
    world.set("login", A=None)
    assert world.settings.get(ADA, "shop", "login", "A").value == "d"
    with pytest.raises(BadInput) as refused:
        world.set("login", A=None)
    assert refused.value.code == "key_inherited"
    assert "comes from develop" in refused.value.sentence
    assert "--hide" in refused.value.hint
    world.hide("login", "A")
    assert "A" not in world.settings.keys(EVE, "shop", "login").keys
    world.set("login", A=None)
    assert world.settings.get(ADA, "shop", "login", "A").value == "d"


@pytest.mark.parametrize("name", ["Develop", "a b", "_none", "../x", "-", ""])
def test_names_that_are_no_environment(world: World, name: str) -> None:
    assert code(lambda: world.settings.keys(ADA, "shop", name)) == "bad_name"
    assert code(lambda: world.set(name, A="1")) == "bad_name"
    assert code(lambda: world.provenance.explain(ADA, "shop", name)) == "bad_name"


def test_config_may_be_there_before_its_environment(world: World) -> None:
    world.environment("release-2")
    said = world.settings.change(ADA, "shop", "staging", {"A": "1"})
    assert (said.version, said.environment_exists, said.perhaps_meant) == (1, False, "")
    for name, meant in (
        ("stagin", "staging"),
        ("dev", "develop"),
        ("relase-2", "release-2"),
        ("eu-prod", "production"),
        ("login", ""),
    ):
        said = world.settings.change(ADA, "shop", name, {"A": "1"})
        assert (said.environment_exists, said.perhaps_meant) == (False, meant), name
    for name in ("release-2", COMMON):
        said = world.settings.change(ADA, "shop", name, {"A": "1"})
        assert (said.environment_exists, said.perhaps_meant) == (True, ""), name


@pytest.mark.parametrize("name", ["prod", "prd", "live", "produktion", "produciton", "prod-2", "production-eu"])
def test_what_is_meant_for_production_does_not_come_to_lie_elsewhere(world: World, name: str) -> None:
    for refused in (lambda: world.set(name, A="hush"), lambda: world.hide(name, "A"), lambda: world.set(name, A=None)):
        assert code(refused) == "unknown_environment"
    assert world.writer.keys(Layer("shop", name)).version == 0
    world.environment(name)
    assert world.set(name, A="1") == 1


def test_what_once_came_to_lie_elsewhere_can_be_taken_out(world: World) -> None:
    world.configs.put("shop", "prod", {"A": "hush"})
    said = world.settings.change(ADA, "shop", "prod", {"A": None})
    assert (said.version, said.environment_exists, said.perhaps_meant) == (2, False, "production")


@pytest.mark.parametrize("name", ["production", "preproduction", "non-prod", "product-page", "login", "live-search"])
def test_other_names_are_not_taken_for_productions(world: World, name: str) -> None:
    assert world.settings.change(ADA, "shop", name, {"A": "1"}).perhaps_meant == ""


@pytest.mark.parametrize("key", ["PORT", "BRANCHLINE_RELEASE"])
def test_what_the_platform_writes_itself_is_not_set(world: World, key: str) -> None:
    assert code(lambda: world.set("develop", **{key: "1"})) == "platforms_key"
    world.configs.put("shop", "develop", {key: "1"})
    assert world.set("develop", **{key: None}) == 2


def test_a_project_that_is_unknown(world: World) -> None:
    with pytest.raises(NotFound):
        world.settings.keys(ADA, "ship", "develop")


# --- who may ---


def test_who_may_read_and_write(world: World) -> None:
    world.set("develop", BOB, A="1")
    world.set("production", ADA, A="1")
    assert world.settings.keys(MAX, "shop", "production").keys == {"A": "production"}
    assert world.settings.change(MAX, "shop", "production", {"B": "1"}).version == 2
    for refused in (
        lambda: world.settings.keys(EVE, "shop", "production"),
        lambda: world.settings.keys(BOB, "shop", "production"),
        lambda: world.settings.get(MAX, "shop", "production", "A"),
        lambda: world.provenance.explain(BOB, "shop", "production"),
        lambda: world.provenance.history(BOB, "shop", "production"),
        lambda: world.provenance.diff(BOB, "shop", "develop", "production"),
        lambda: world.provenance.diff(BOB, "shop", "production", "develop"),
        lambda: world.settings.get(EVE, "shop", "develop", "A"),
        lambda: world.settings.export(EVE, "shop", "develop"),
        lambda: world.set("develop", EVE, A="2"),
        lambda: world.set(COMMON, EVE, A="2"),
        lambda: world.set("production", BOB, A="2"),
        lambda: world.settings.get(ADA, "shop", "production", "A"),
        lambda: world.settings.export(ADA, "shop", "production"),
        lambda: world.provenance.diff(EVE, "shop", "develop", "staging"),
    ):
        with pytest.raises(Refused):
            refused()
    told = [(one.actor, one.detail["permission"]) for one in world.events(Kind.ACCESS_REFUSED)]
    assert told.count(("bob", "production:config")) == 6
    assert told.count(("max", "production:config_values")) == 1
    assert len(told) == 15


def test_the_register_says_who_saw_and_who_changed_what(world: World) -> None:
    world.set("develop", BOB, A="hush", B="hush")
    world.hide("login", "A")
    world.settings.get(BOB, "shop", "develop", "A")
    world.settings.export(ADA, "shop", "develop")
    changed = [(one.actor, one.environment, one.detail) for one in world.events(Kind.CONFIG_CHANGED)]
    assert changed == [
        ("bob", "develop", {"version": 1, "set": ["A", "B"], "hidden": [], "removed": []}),
        ("ada", "login", {"version": 1, "set": [], "hidden": ["A"], "removed": []}),
    ]
    seen = [(one.actor, one.environment, one.detail) for one in world.events(Kind.CONFIG_READ)]
    assert seen == [("bob", "develop", {"keys": ["A"]}), ("ada", "develop", {"keys": ["A", "B"]})]
    assert "hush" not in str(world.store.tables.events)


# --- provenance ---


def test_every_key_is_explained(world: World) -> None:
    world.set(COMMON, ADA, A="c")
    world.set("develop", BOB, A="d", B="d")
    world.set("develop", ADA, B="again")
    world.hide("login", "B")
    a, b = world.provenance.explain(EVE, "shop", "login")
    assert (a.key, a.origin.layer, a.origin.version, a.origin.by) == ("A", "develop", 1, "bob")
    assert [(one.layer, one.version, one.by) for one in a.hides] == [(COMMON, 1, "ada")]
    assert a.origin.at is not None
    assert (b.key, b.origin.layer, b.origin.hidden, b.origin.by) == ("B", "login", True, "ada")
    assert [(one.layer, one.version, one.by) for one in b.hides] == [("develop", 2, "ada")]
    assert world.provenance.explain(EVE, "shop", "login", "A") == [a]
    assert code(lambda: world.provenance.explain(EVE, "shop", "login", "C")) == "unknown_key"


def test_what_was_written_past_us_has_no_author(world: World) -> None:
    world.set("develop", A="1")
    world.configs.put("shop", "develop", {"B": "2"})
    a, b = world.provenance.explain(EVE, "shop", "develop")
    assert (a.origin.by, a.origin.version, a.origin.outside) == ("ada", 1, 2)
    assert (b.origin.by, b.origin.version, b.origin.outside) == (None, None, 2)
    newest, oldest = world.provenance.history(EVE, "shop", "develop")
    assert (newest.version, newest.by, newest.keys) == (2, None, {})
    assert (oldest.version, oldest.by, oldest.keys) == (1, "ada", {"A": "set"})


def test_what_we_did_last_to_a_key_names_no_author_where_it_was_undone_past_us(world: World) -> None:
    world.set("develop", A="1")
    world.set("develop", BOB, A=None)
    world.configs.put("shop", "develop", {"A": "3"})
    (a,) = world.provenance.explain(EVE, "shop", "develop")
    assert (a.origin.by, a.origin.version, a.origin.outside) == (None, None, 3)


def test_changes_in_a_store_that_is_no_more_are_nobodys_here(world: World) -> None:
    for value in ("1", "2", "3"):
        world.set("develop", A=value)
    old = [replace(one, at=one.at - timedelta(days=1)) for one in world.store.tables.changes]
    world.store.tables.changes[:] = old
    world.configs = FakeConfigStore()
    world.writer = world.configs.writer()
    world.configs.put("shop", "develop", {"A": "0"})
    assert world.set("develop", BOB, A="new") == 2
    told = [(one.version, one.by) for one in world.provenance.history(EVE, "shop", "develop")]
    assert told == [(2, "bob"), (1, None)]


def test_the_history_of_a_key(world: World) -> None:
    world.set("develop", A="1", B="1")
    world.set("develop", B="2")
    world.set("develop", BOB, A=None)
    told = world.provenance.history(EVE, "shop", "develop", "A")
    assert [(one.version, one.by, one.keys["A"]) for one in told] == [(3, "bob", "removed"), (1, "ada", "set")]
    world.configs.delete(Layer("shop", "develop"), 1)
    assert [one.there for one in world.provenance.history(EVE, "shop", "develop")] == [True, True, False]
    assert len(world.provenance.history(EVE, "shop", "develop", limit=1)) == 1


def test_environments_are_compared_without_values(world: World) -> None:
    world.set(COMMON, SAME="x")
    world.set("develop", MINE="1", OTHER="1", ALIKE="1")
    world.set("staging", OTHER="2", ALIKE="1", THEIRS="1")
    world.set("production", OTHER="1", LIVE="1")
    told = [
        (one.key, one.what, one.left, one.right) for one in world.provenance.diff(BOB, "shop", "develop", "staging")
    ]
    assert told == [
        ("MINE", "left", "develop", None),
        ("OTHER", "differs", "develop", "staging"),
        ("THEIRS", "right", None, "staging"),
    ]
    told = [(one.key, one.what) for one in world.provenance.diff(MAX, "shop", "develop", "production")]
    assert told == [("ALIKE", "left"), ("LIVE", "right"), ("MINE", "left"), ("OTHER", "unknown"), ("SAME", "left")]
    assert code(lambda: world.provenance.diff(BOB, "shop", "develop", "develop")) == "same_environment"


# --- how what is live stands to the newest ---


def test_live_config_falls_behind_by_any_layer(world: World) -> None:
    world.set("develop", A="1")
    world.set("login", B="1")
    place = world.live("login", {"shop/_common": 0, "shop/env/develop": 1, "shop/env/login": 1})
    status = world.provenance.status(ADA, place)
    assert status
    assert (status.behind, status.keys) == (False, [])
    world.set(COMMON, C="1")
    world.set("develop", A="2", D="2")
    status = world.provenance.status(ADA, place)
    assert status
    assert (status.behind, status.keys) == (True, ["A", "C", "D"])
    assert [(one.layer, one.live, one.newest) for one in status.layers] == [
        (COMMON, 0, 1),
        ("develop", 1, 2),
        ("login", 1, 1),
    ]


@pytest.mark.parametrize("name", ["login", "production"])
def test_a_live_version_that_is_gone_is_told(world: World, name: str) -> None:
    layer = Layer("shop", name)
    world.set(name, A="1")
    world.set(name, A="2")
    place = world.live(name, {f"shop/env/{name}": 2})

    def told() -> tuple[bool, list[str], list[str]]:
        status = world.provenance.status(ADA, place)
        assert status
        return status.behind, status.keys, [one.layer for one in status.layers if one.gone]

    world.configs.delete(layer, 1)
    assert told() == (False, [], [])
    world.configs.delete(layer, 2)
    assert told() == (False, [], [name])
    world.set(name, B="3")
    assert told() == (True, ["B"], [name])
    world.configs.prune(layer, 2)
    assert told() == (True, ["B"], [name])


def test_a_live_version_of_a_store_that_was_replaced_is_gone(world: World) -> None:
    world.set("develop", A="1")
    place = world.live("develop", {"shop/_common": 3, "shop/env/develop": 5})
    status = world.provenance.status(ADA, place)
    assert status
    assert [(one.layer, one.live, one.newest, one.gone) for one in status.layers] == [
        (COMMON, 3, 0, True),
        ("develop", 5, 1, True),
    ]


def deployments(world: World) -> Deployments:
    return Deployments(world.store, Gate(world.store), Views(lambda name: name), FakeSource(), "test")


def test_what_is_live_is_asked_for_once_more(world: World) -> None:
    place = world.live("develop", {"shop/env/develop": 0})
    asked = deployments(world).apply_config(BOB, "shop", "develop", Trigger.CLI, "new keys")
    with world.store.transaction() as records:
        live = records.deployments.get(place.live_deployment or 0)
        new = records.deployments.get(asked.id)
    assert (new.ref, new.commit, new.state, new.reason) == (live.ref, live.commit, State.QUEUED, "new keys")
    assert new.config is None
    (event,) = world.events(Kind.DEPLOYMENT_REQUESTED)
    assert event.detail["again"] == live.id


def test_config_is_not_applied_over_what_is_under_way(world: World) -> None:
    place = world.live("develop", {"shop/env/develop": 0})
    with world.store.transaction() as records:
        newer = Revision("refs/heads/develop", "b" * 40, "")
        records.deployments.add(place, newer, actor="ada", trigger=Trigger.CLI, reason="")
    apply = deployments(world).apply_config
    assert code(lambda: apply(BOB, "shop", "develop", Trigger.CLI, "")) == "deployment_under_way"
    assert len(world.store.tables.deployments) == 2
    world.environment("staging")
    assert code(lambda: apply(BOB, "shop", "staging", Trigger.CLI, "")) == "nothing_live"
    for actor, name in ((EVE, "develop"), (BOB, "production")):
        world.environment(name)
        with pytest.raises(Refused):
            apply(actor, "shop", name, Trigger.CLI, "")


def test_a_store_that_is_away_hides_no_environment(world: World) -> None:
    place = world.live("develop", {"shop/env/develop": 0})
    assert world.provenance.status(ADA, world.environment("staging")) is None
    world.configs.go_down()
    status = world.provenance.status(ADA, place)
    assert status
    assert "cannot be reached" in status.trouble


# --- check-and-set, and crashes between two stores ---


def test_an_expected_version_is_insisted_on(world: World) -> None:
    world.set("develop", A="1")
    with pytest.raises(Conflict):
        world.settings.change(ADA, "shop", "develop", {"A": "2"}, (), 0)
    assert world.settings.change(ADA, "shop", "develop", {"A": "2"}, (), 1).version == 2
    assert len(world.store.tables.changes) == len(world.events(Kind.CONFIG_CHANGED)) == 2


def test_what_others_write_meanwhile_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write, once = FakeConfigWriter.write, iter([True])

    def crowded(self: FakeConfigWriter, layer: Layer, changes: Any, expected: int) -> int:
        if next(once, False):
            write(self, layer, {"OTHER": Secret("o")}, expected)
        return write(self, layer, changes, expected)

    monkeypatch.setattr(FakeConfigWriter, "write", crowded)
    assert world.set("develop", A="1") == 2
    assert world.settings.export(ADA, "shop", "develop").values == {"A": "1", "OTHER": "o"}
    assert [one.version for one in world.store.tables.changes] == [2]


class Killed(BaseException):
    """What `kill -9` is in these tests."""


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("how", [Killed, PlatformBroke])
def test_a_change_whose_writer_died_is_settled(
    world: World, monkeypatch: pytest.MonkeyPatch, written: bool, how: type[BaseException]
) -> None:
    write = FakeConfigWriter.write
    world.set("develop", A="1")

    def dies(self: FakeConfigWriter, layer: Layer, changes: Any, expected: int) -> int:
        if written:
            write(self, layer, changes, expected)
        raise how("gone")

    with monkeypatch.context() as patched:
        patched.setattr(FakeConfigWriter, "write", dies)
        with pytest.raises(how):
            world.set("develop", BOB, A="2", B="2")
    monkeypatch.setattr(config_ledger, "_UNDER_WAY", timedelta(0))
    history = world.provenance.history(EVE, "shop", "develop")
    assert [one.by for one in history] == (["bob", "ada"] if written else ["ada"])
    assert [one.actor for one in world.events(Kind.CONFIG_CHANGED)] == [*["ada", "bob"][: 1 + written]]
    assert all(one.version is not None for one in world.store.tables.changes)
    world.set("develop", C="3")
    assert len(world.provenance.history(EVE, "shop", "develop")) == 2 + written


def test_of_two_who_died_on_one_version_neither_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer("shop", "develop")
    with world.store.transaction() as records:
        for actor in ("ada", "bob"):
            records.config.begin(world.project, layer, 0, Actor(actor, "token"), {"A": Done.SET})
    world.writer.write(layer, {"A": Secret("1")}, 0)
    monkeypatch.setattr(config_ledger, "_UNDER_WAY", timedelta(0))
    assert [one.by for one in world.provenance.history(EVE, "shop", "develop")] == [None]
    assert world.store.tables.changes == []
    [line] = world.events(Kind.CONFIG_CHANGED)
    assert (line.actor, line.detail) == ("platform", {"version": 1, "by_one_of": ["ada", "bob"]})


def test_what_is_left_in_any_layer_gets_its_line_without_anybody_looking(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for environment in ("develop", "production"):
        layer = Layer("shop", environment)
        with world.store.transaction() as records:
            records.config.begin(world.project, layer, 0, ADA, {"A": Done.SET})
        world.writer.write(layer, {"A": Secret("1")}, 0)
    ledger = ConfigLedger(world.store, world.writer)
    ledger.settle_all()
    assert world.events(Kind.CONFIG_CHANGED) == [], "somebody may be at it"
    monkeypatch.setattr(config_ledger, "_UNDER_WAY", timedelta(0))
    ledger.settle_all()
    assert sorted(str(one.environment) for one in world.events(Kind.CONFIG_CHANGED)) == ["develop", "production"]
    ledger.settle_all()
    assert len(world.events(Kind.CONFIG_CHANGED)) == 2


def test_a_writer_who_was_taken_for_dead_gets_a_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write = FakeConfigWriter.write

    def slow(self: FakeConfigWriter, layer: Layer, changes: Any, expected: int) -> int:
        with monkeypatch.context() as patched:
            patched.setattr(config_ledger, "_UNDER_WAY", timedelta(0))
            ConfigLedger(world.store, world.writer).settle_all()
        return write(self, layer, changes, expected)

    monkeypatch.setattr(FakeConfigWriter, "write", slow)
    assert world.set("develop", A="1") == 1
    assert [one.by for one in world.provenance.history(EVE, "shop", "develop")] == ["ada"]
    assert [one.actor for one in world.events(Kind.CONFIG_CHANGED)] == ["ada"]


def test_a_refused_change_leaves_nothing(world: World) -> None:
    with pytest.raises(BadInput):
        world.set("develop", **{f"K{number}": "x" * 100_000 for number in range(12)})
    assert world.store.tables.changes == []
    assert world.set("develop", A=None) == 0
    assert world.store.tables.changes == []


def test_production_is_never_given_a_key_to_hide(world: World) -> None:
    world.set("production", A="1")
    assert code(lambda: world.hide("production", "A")) == "nothing_beneath"
    assert world.writer.write(Layer("shop", "production"), {"A": HIDDEN}, 1) == 2
    assert world.settings.keys(ADA, "shop", "production").keys == {}


def test_tiers_are_walls_in_code_too() -> None:
    assert Layer("shop", COMMON).tier is Tier.NONPROD
    assert usually_inherits("production") is Inherits.NOTHING
