"""ConfigReader and ConfigWriter: the fake and OpenBao keep the same promises."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment, Inherits, Tier, tier_of, usually_inherits
from branchline.domain.errors import BadInput, BranchlineError, Conflict, Refused
from branchline.domain.layers import COMMON, HIDDEN, Change, Document, Keys, Layer
from branchline.ports import ConfigReader, ConfigWriter
from tests.fakes.config import FakeConfigStore
from tests.openbao import RealConfigStore

EVERY_TIER = pytest.mark.parametrize("name", ["develop", "production"])


class ConfigStore(Protocol):
    """A store with all who come to it, and what can happen to it."""

    def reader(self, tier: Tier) -> ConfigReader: ...

    def writer(self) -> ConfigWriter: ...

    def put(self, project: str, name: str, values: Mapping[str, str | None]) -> int: ...

    def delete(self, layer: Layer, version: int) -> None: ...

    def prune(self, layer: Layer, left: int) -> None: ...

    def go_down(self) -> None: ...


@pytest.fixture(params=["fake", pytest.param("openbao", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> ConfigStore:
    if request.param == "fake":
        return FakeConfigStore()
    return RealConfigStore(request.getfixturevalue("openbao"), request.getfixturevalue("home_layout"))


@pytest.fixture
def project() -> str:
    return f"p{uuid.uuid4().hex[:12]}"


def environment(project: str, name: str, inherits: Inherits | None = None) -> Environment:
    beneath = usually_inherits(name) if inherits is None else inherits
    return Environment(id=1, project=project, name=name, tier=tier_of(name), slot=1, inherits=beneath)


def changes(**values: str | None) -> dict[str, Change]:
    return {key: None if value is None else Secret(value) for key, value in values.items()}


def plain(config: Config) -> dict[str, str]:
    return {key: secret.reveal() for key, secret in config.items()}


def code(call: Callable[[], object]) -> str:
    with pytest.raises(BranchlineError) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


def set_keys(version: int, *names: str) -> Keys:
    return Keys(version, frozenset(names))


def own(project: str, name: str, version: int) -> dict[str, int]:
    """What a deployment pins of an environment beneath which nothing is."""
    beneath = {} if name == "production" else {f"{project}/_common": 0}
    return {**beneath, f"{project}/env/{name}": version}


@EVERY_TIER
def test_what_was_never_set_is_empty(store: ConfigStore, project: str, name: str) -> None:
    config = store.reader(tier_of(name)).read(environment(project, name))
    assert (plain(config), config.versions) == ({}, own(project, name, 0))
    assert store.writer().keys(Layer(project, name)) == Keys(0)
    assert store.writer().versions(Layer(project, name)) == []


@EVERY_TIER
def test_the_runner_reads_what_the_server_wrote(store: ConfigStore, project: str, name: str) -> None:
    values = {"A": "1", "EMPTY": "", "URL": "postgresql://ä:ö@h/?x=%20", "PEM": "one\ntwo\n", "LONG": "x" * 100_000}
    assert store.writer().write(Layer(project, name), changes(**values), 0) == 1
    config = store.reader(tier_of(name)).read(environment(project, name))
    assert (plain(config), config.versions) == (values, own(project, name, 1))


@EVERY_TIER
def test_changes_are_laid_over_what_is_there(store: ConfigStore, project: str, name: str) -> None:
    writer, layer = store.writer(), Layer(project, name)
    writer.write(layer, changes(KEPT="1", CHANGED="1", GONE="1"), 0)
    assert writer.write(layer, changes(CHANGED="2", NEW="2", GONE=None, NEVER=None), 1) == 2
    read = store.reader(tier_of(name)).read(environment(project, name))
    assert plain(read) == {"KEPT": "1", "CHANGED": "2", "NEW": "2"}
    assert writer.keys(layer) == set_keys(2, "CHANGED", "KEPT", "NEW")


@EVERY_TIER
def test_a_pinned_version_stays_what_it_was(store: ConfigStore, project: str, name: str) -> None:
    reader, place = store.reader(tier_of(name)), environment(project, name)
    store.put(project, name, {"A": "1"})
    store.put(project, name, {"A": "2", "B": "2"})
    pins = [own(project, name, version) for version in (0, 1, 2)]
    assert [plain(reader.read(place, pin)) for pin in pins] == [{}, {"A": "1"}, {"A": "2", "B": "2"}]
    assert [reader.read(place, pin).versions for pin in pins] == pins


@EVERY_TIER
def test_all_keys_can_be_unset(store: ConfigStore, project: str, name: str) -> None:
    writer, layer = store.writer(), Layer(project, name)
    store.put(project, name, {"A": "1"})
    assert writer.write(layer, changes(A=None), 1) == 2
    config = store.reader(tier_of(name)).read(environment(project, name))
    assert (plain(config), config.versions) == ({}, own(project, name, 2))
    assert writer.write(layer, changes(B="3"), 2) == 3


@EVERY_TIER
def test_a_change_that_changes_nothing_makes_no_version(store: ConfigStore, project: str, name: str) -> None:
    writer, layer = store.writer(), Layer(project, name)
    assert writer.write(layer, changes(A=None), 0) == 0
    writer.write(layer, changes(A="1"), 0)
    assert writer.write(layer, changes(B=None), 1) == 1
    assert writer.write(layer, changes(A="1"), 1) == (2 if name == "production" else 1)


@EVERY_TIER
def test_environments_and_projects_do_not_mix(store: ConfigStore, project: str, name: str) -> None:
    store.put(project, name, {"A": "1"})
    assert not store.reader(tier_of(name)).read(environment(project + "x", name))
    for other in {"develop", "production", "feature", COMMON} - {name}:
        assert store.writer().keys(Layer(project, other)) == Keys(0)


def test_the_nearest_layer_answers_key_by_key(store: ConfigStore, project: str) -> None:
    store.put(project, COMMON, {"COMMON": "c", "DEVELOP": "c", "BRANCH": "c", "HIDDEN": "c"})
    store.put(project, "develop", {"DEVELOP": "d", "BRANCH": "d", "HIDDEN": "d", "NEW": "d"})
    store.put(project, "login", {"BRANCH": "l", "HIDDEN": None})
    read = store.reader(Tier.NONPROD).read
    login = read(environment(project, "login"))
    assert plain(login) == {"COMMON": "c", "DEVELOP": "d", "BRANCH": "l", "NEW": "d"}
    assert login.versions == {f"{project}/_common": 1, f"{project}/env/develop": 1, f"{project}/env/login": 1}
    assert plain(read(environment(project, "develop"))) == {
        "COMMON": "c",
        "DEVELOP": "d",
        "BRANCH": "d",
        "HIDDEN": "d",
        "NEW": "d",
    }


def test_a_branch_without_a_config_of_its_own_inherits_all_of_develop(store: ConfigStore, project: str) -> None:
    store.put(project, "develop", {"A": "1", "B": "2"})
    config = store.reader(Tier.NONPROD).read(environment(project, "fresh"))
    assert plain(config) == {"A": "1", "B": "2"}
    assert config.versions == {f"{project}/_common": 0, f"{project}/env/develop": 1, f"{project}/env/fresh": 0}


@pytest.mark.parametrize(
    ("inherits", "seen"),
    [
        (Inherits.NOTHING, {"OWN": "s"}),
        (Inherits.COMMON, {"COMMON": "c", "OWN": "s"}),
        (Inherits.DEVELOP, {"COMMON": "c", "DEVELOP": "d", "OWN": "s"}),
    ],
)
def test_an_environment_inherits_what_its_manifest_says(
    store: ConfigStore, project: str, inherits: Inherits, seen: dict[str, str]
) -> None:
    store.put(project, COMMON, {"COMMON": "c"})
    store.put(project, "develop", {"DEVELOP": "d"})
    store.put(project, "staging", {"OWN": "s"})
    assert plain(store.reader(Tier.NONPROD).read(environment(project, "staging", inherits))) == seen


def test_production_inherits_nothing_whatever_is_said(store: ConfigStore, project: str) -> None:
    store.put(project, COMMON, {"A": "c"})
    store.put(project, "develop", {"A": "d"})
    store.put(project, "production", {"B": "p"})
    place = environment(project, "production", Inherits.DEVELOP)
    reader = store.reader(Tier.PRODUCTION)
    assert plain(reader.read(place)) == {"B": "p"}
    for beneath in ("_common", "env/develop"):
        pins = {f"{project}/{beneath}": 1, f"{project}/env/production": 1}
        assert code(lambda pins=pins: reader.read(place, pins)) == "config_refused"


@pytest.mark.parametrize("path", ["{project}/env/other", "{project}x/env/login", "{project}/env/production"])
def test_pins_lead_nowhere_else(store: ConfigStore, project: str, path: str) -> None:
    store.put(project, "login", {"A": "1"})
    pins = {path.format(project=project): 1}
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, "login"), pins)) == "config_refused"


def test_what_was_pinned_is_resolved_as_it_was_though_every_layer_moved_on(store: ConfigStore, project: str) -> None:
    reader, place = store.reader(Tier.NONPROD), environment(project, "login")
    store.put(project, "develop", {"A": "1", "B": "1", "C": "1"})
    store.put(project, "login", {"B": "2"})
    before = reader.read(place)
    store.put(project, COMMON, {"NEW": "3"})
    store.put(project, "develop", {"A": "3", "C": None})
    store.put(project, "login", {"A": "4"})
    assert plain(reader.read(place)) == {"NEW": "3", "A": "4", "B": "2"}
    assert plain(reader.read(place, before.versions)) == plain(before) == {"A": "1", "B": "2", "C": "1"}


def test_a_hidden_key_is_known_as_such_and_can_be_shown_again(store: ConfigStore, project: str) -> None:
    writer, layer = store.writer(), Layer(project, "login")
    store.put(project, "develop", {"A": "1"})
    assert writer.write(layer, {"A": HIDDEN, "B": Secret("2")}, 0) == 1
    assert writer.keys(layer) == Keys(1, frozenset({"B"}), frozenset({"A"}))
    assert writer.write(layer, {"A": HIDDEN}, 1) == 1
    assert writer.write(layer, changes(A=None), 1) == 2
    assert plain(store.reader(Tier.NONPROD).read(environment(project, "login"))) == {"A": "1", "B": "2"}


@EVERY_TIER
def test_the_versions_are_told_newest_first(store: ConfigStore, project: str, name: str) -> None:
    for value in ("1", "2", "3"):
        store.put(project, name, {"A": value})
    layer = Layer(project, name)
    store.delete(layer, 2)
    told = store.writer().versions(layer)
    assert [(one.version, one.there) for one in told] == [(3, True), (2, False), (1, True)]
    assert all(abs(datetime.now(UTC) - one.at) < timedelta(minutes=5) for one in told)


@EVERY_TIER
def test_what_was_pruned_is_neither_told_nor_read(store: ConfigStore, project: str, name: str) -> None:
    layer, reader, place = Layer(project, name), store.reader(tier_of(name)), environment(project, name)
    for value in ("1", "2", "3"):
        store.put(project, name, {"A": value})
    store.prune(layer, 2)
    assert [(one.version, one.there) for one in store.writer().versions(layer)] == [(4, True), (3, True)]
    assert code(lambda: reader.read(place, own(project, name, 2))) == "config_gone"
    assert plain(reader.read(place, own(project, name, 3))) == {"A": "3"}


@EVERY_TIER
def test_one_layer_is_read_at_any_version_that_is_there(store: ConfigStore, project: str, name: str) -> None:
    layer, reader, place = Layer(project, name), store.reader(tier_of(name)), environment(project, name)
    for value in ("1", "2", "3"):
        store.put(project, name, {"A": value})
    assert reader.layer(place, layer, 0) == Document(layer, 0, {})
    assert reader.layer(place, layer, 2) == Document(layer, 2, {"A": Secret("2")})
    store.delete(layer, 2)
    assert code(lambda: reader.layer(place, layer, 2)) == "config_gone"
    assert code(lambda: reader.layer(place, layer, 9)) == "config_gone"
    assert code(lambda: reader.layer(place, Layer(project + "x", name), 1)) == "config_refused"
    other = Layer(project, "develop" if name == "production" else "production")
    assert code(lambda: reader.layer(place, other, 1)) == "config_refused"


def test_a_layer_beneath_is_read_as_it_is_by_itself(store: ConfigStore, project: str) -> None:
    reader, place, above = store.reader(Tier.NONPROD), environment(project, "login"), Layer(project, "login")
    store.put(project, COMMON, {"A": "1"})
    store.put(project, "develop", {"A": "2"})
    store.put(project, "login", {"A": None})
    assert reader.layer(place, Layer(project, COMMON), 1).entries == {"A": Secret("1")}
    assert reader.layer(place, Layer(project, "develop"), 1).entries == {"A": Secret("2")}
    assert reader.layer(place, above, 1).entries == {"A": HIDDEN}
    alone = replace(place, inherits=Inherits.NOTHING)
    assert reader.layer(alone, Layer(project, "develop"), 1).entries == {"A": Secret("2")}, "as it was inherited then"
    assert code(lambda: reader.layer(place, Layer(project, "basket"), 0)) == "config_refused"


def test_the_server_reads_nonprod_but_never_production(store: ConfigStore, project: str) -> None:
    writer = store.writer()
    for name in ("develop", "production"):
        store.put(project, name, {"A": "1"})
    assert writer.read(Layer(project, "develop")).entries == {"A": Secret("1")}
    with pytest.raises(Refused):
        writer.read(Layer(project, "production"))


def test_a_runner_reads_only_its_tier(store: ConfigStore, project: str) -> None:
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, "production"))) == "config_refused"
    assert code(lambda: store.reader(Tier.PRODUCTION).read(environment(project, "develop"))) == "config_refused"


@EVERY_TIER
def test_an_outdated_expectation_writes_nothing(store: ConfigStore, project: str, name: str) -> None:
    writer, layer = store.writer(), Layer(project, name)
    assert writer.write(layer, changes(A="1"), 0) == 1
    assert writer.write(layer, changes(A="2"), 1) == 2
    for outdated in (0, 1, 3):
        with pytest.raises(Conflict) as caught:
            writer.write(layer, changes(A="lost", B="lost"), outdated)
        assert caught.value.code == "config_changed"
    assert plain(store.reader(tier_of(name)).read(environment(project, name))) == {"A": "2"}


@EVERY_TIER
def test_of_writers_with_one_expectation_one_wins(store: ConfigStore, project: str, name: str) -> None:
    def write(number: int) -> int | None:
        try:
            return store.writer().write(Layer(project, name), changes(A=str(number)), 0)
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(write, range(8)))
    assert sorted(written, key=str) == [1, *[None] * 7]
    won = store.reader(tier_of(name)).read(environment(project, name))
    assert plain(won) == {"A": str(written.index(1))}


@EVERY_TIER
def test_a_pinned_version_that_is_gone_is_an_error(store: ConfigStore, project: str, name: str) -> None:
    reader, place = store.reader(tier_of(name)), environment(project, name)
    for value in ("1", "2"):
        store.put(project, name, {"A": value})
    store.delete(Layer(project, name), 1)
    assert code(lambda: reader.read(place, own(project, name, 1))) == "config_gone"
    assert code(lambda: reader.read(place, own(project, name, 3))) == "config_gone"
    assert plain(reader.read(place)) == {"A": "2"}


def test_a_pinned_parent_that_is_gone_is_an_error(store: ConfigStore, project: str) -> None:
    reader, place = store.reader(Tier.NONPROD), environment(project, "login")
    store.put(project, "develop", {"A": "1"})
    before = reader.read(place).versions
    store.put(project, "develop", {"A": "2"})
    store.delete(Layer(project, "develop"), 1)
    assert code(lambda: reader.read(place, before)) == "config_gone"


@EVERY_TIER
def test_nothing_runs_with_an_empty_config_because_the_newest_is_gone(
    store: ConfigStore, project: str, name: str
) -> None:
    layer, reader, place = Layer(project, name), store.reader(tier_of(name)), environment(project, name)
    store.put(project, name, {"A": "1"})
    store.delete(layer, 1)
    assert code(lambda: reader.read(place)) == "config_gone"
    assert store.writer().keys(layer) == Keys(1)
    assert store.writer().write(layer, changes(B="2"), 1) == 2
    assert plain(reader.read(place)) == {"B": "2"}


@EVERY_TIER
def test_a_config_that_is_too_large_is_not_written(store: ConfigStore, project: str, name: str) -> None:
    writer, layer = store.writer(), Layer(project, name)
    writer.write(layer, changes(**{f"K{number}": "x" * 100_000 for number in range(9)}), 0)
    with pytest.raises(BadInput) as caught:
        writer.write(layer, changes(**{f"L{number}": "x" * 100_000 for number in range(3)}), 1)
    assert caught.value.code == "config_too_large"
    assert writer.keys(layer) == set_keys(1, *(f"K{number}" for number in range(9)))


@EVERY_TIER
def test_five_hundred_keys_are_no_trouble(store: ConfigStore, project: str, name: str) -> None:
    values = {f"KEY_{number}": f"value {number}" for number in range(500)}
    assert store.writer().write(Layer(project, name), changes(**values), 0) == 1
    assert plain(store.reader(tier_of(name)).read(environment(project, name))) == values


@pytest.mark.parametrize("name", ["..", "a/b", "*", "", "Develop", "a\n", "+", "%2e", "_none", "_Common"])
def test_names_cannot_point_elsewhere(store: ConfigStore, project: str, name: str) -> None:
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, name))) == "bad_name"
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(name, "develop"))) == "bad_name"
    pins = {f"{project}/env/{name}": 1}
    if name:
        assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, "login"), pins)) == "bad_name"
    assert code(lambda: Layer(project, name)) == "bad_name"
    assert code(lambda: Layer(name, "production")) == "bad_name"


def test_a_store_that_cannot_be_reached(store: ConfigStore, project: str) -> None:
    store.go_down()
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, "develop"))) == "config_unreachable"
    writer = store.writer()
    for name in ("develop", "production"):
        layer = Layer(project, name)
        assert code(lambda layer=layer: writer.keys(layer)) == "config_unreachable"
        assert code(lambda layer=layer: writer.versions(layer)) == "config_unreachable"
        assert code(lambda layer=layer: writer.write(layer, changes(A="1"), 0)) == "config_unreachable"
