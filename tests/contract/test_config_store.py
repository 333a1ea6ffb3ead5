"""ConfigReader and ConfigWriter: the fake and OpenBao keep the same promises."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment, Tier, tier_of
from branchline.domain.errors import BadInput, BranchlineError, Conflict, Refused
from branchline.ports import ConfigReader, ConfigWriter
from tests.fakes.config import FakeConfigStore
from tests.openbao import RealConfigStore

EVERY_TIER = pytest.mark.parametrize("name", ["develop", "production"])


class ConfigStore(Protocol):
    """A store with all who come to it, and what can happen to it."""

    def reader(self, tier: Tier) -> ConfigReader: ...

    def writer(self) -> ConfigWriter: ...

    def delete(self, project: str, environment: str, version: int) -> None: ...

    def go_down(self) -> None: ...


@pytest.fixture(params=["fake", pytest.param("openbao", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> ConfigStore:
    if request.param == "fake":
        return FakeConfigStore()
    return RealConfigStore(request.getfixturevalue("openbao"), request.getfixturevalue("home_layout"))


@pytest.fixture
def project() -> str:
    return f"p{uuid.uuid4().hex[:12]}"


def environment(project: str, name: str) -> Environment:
    return Environment(id=1, project=project, name=name, tier=tier_of(name), slot=1)


def secrets(**values: str | None) -> dict[str, Secret | None]:
    return {key: None if value is None else Secret(value) for key, value in values.items()}


def plain(config: Config) -> dict[str, str]:
    return {key: secret.reveal() for key, secret in config.items()}


def code(call: Callable[[], object]) -> str:
    with pytest.raises(BranchlineError) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


@EVERY_TIER
def test_what_was_never_set_is_empty(store: ConfigStore, project: str, name: str) -> None:
    config = store.reader(tier_of(name)).read(environment(project, name))
    assert (plain(config), config.version) == ({}, 0)
    assert store.writer().keys(project, name) == ([], 0)


@EVERY_TIER
def test_the_runner_reads_what_the_server_wrote(store: ConfigStore, project: str, name: str) -> None:
    values = {"A": "1", "EMPTY": "", "URL": "postgresql://ä:ö@h/?x=%20", "PEM": "one\ntwo\n", "LONG": "x" * 100_000}
    assert store.writer().write(project, name, secrets(**values)) == 1
    config = store.reader(tier_of(name)).read(environment(project, name))
    assert (plain(config), config.version) == (values, 1)


@EVERY_TIER
def test_changes_are_laid_over_what_is_there(store: ConfigStore, project: str, name: str) -> None:
    writer, reader = store.writer(), store.reader(tier_of(name))
    writer.write(project, name, secrets(KEPT="1", CHANGED="1", GONE="1"))
    assert writer.write(project, name, secrets(CHANGED="2", NEW="2", GONE=None, NEVER=None)) == 2
    assert plain(reader.read(environment(project, name))) == {"KEPT": "1", "CHANGED": "2", "NEW": "2"}
    assert writer.keys(project, name) == (["CHANGED", "KEPT", "NEW"], 2)


@EVERY_TIER
def test_a_pinned_version_stays_what_it_was(store: ConfigStore, project: str, name: str) -> None:
    writer, reader, place = store.writer(), store.reader(tier_of(name)), environment(project, name)
    writer.write(project, name, secrets(A="1"))
    writer.write(project, name, secrets(A="2", B="2"))
    assert [plain(reader.read(place, version)) for version in (0, 1, 2)] == [{}, {"A": "1"}, {"A": "2", "B": "2"}]
    assert [reader.read(place, version).version for version in (0, 1, None)] == [0, 1, 2]


@EVERY_TIER
def test_all_keys_can_be_unset(store: ConfigStore, project: str, name: str) -> None:
    writer = store.writer()
    writer.write(project, name, secrets(A="1"))
    assert writer.write(project, name, secrets(A=None)) == 2
    config = store.reader(tier_of(name)).read(environment(project, name))
    assert (plain(config), config.version) == ({}, 2)
    assert writer.write(project, name, secrets(B="3")) == 3


@EVERY_TIER
def test_a_change_that_changes_nothing_makes_no_version(store: ConfigStore, project: str, name: str) -> None:
    writer = store.writer()
    assert writer.write(project, name, secrets(A=None)) == 0
    writer.write(project, name, secrets(A="1"))
    assert writer.write(project, name, secrets(B=None)) == 1
    assert writer.write(project, name, secrets(A="1")) == (2 if name == "production" else 1)


@EVERY_TIER
def test_environments_and_projects_do_not_mix(store: ConfigStore, project: str, name: str) -> None:
    writer, reader = store.writer(), store.reader(tier_of(name))
    writer.write(project, name, secrets(A="1"))
    assert not reader.read(environment(project + "x", name))
    for other in {"develop", "production", "feature"} - {name}:
        assert writer.keys(project, other) == ([], 0)


def test_the_server_reads_nonprod_but_never_production(store: ConfigStore, project: str) -> None:
    writer = store.writer()
    for name in ("develop", "production"):
        writer.write(project, name, secrets(A="1"))
    assert plain(writer.read(project, "develop")) == {"A": "1"}
    with pytest.raises(Refused):
        writer.read(project, "production")


def test_a_runner_reads_only_its_tier(store: ConfigStore, project: str) -> None:
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, "production"))) == "config_refused"
    assert code(lambda: store.reader(Tier.PRODUCTION).read(environment(project, "develop"))) == "config_refused"


@EVERY_TIER
def test_an_outdated_expectation_writes_nothing(store: ConfigStore, project: str, name: str) -> None:
    writer = store.writer()
    assert writer.write(project, name, secrets(A="1"), expected_version=0) == 1
    assert writer.write(project, name, secrets(A="2"), expected_version=1) == 2
    for outdated in (0, 1, 3):
        with pytest.raises(Conflict) as caught:
            writer.write(project, name, secrets(A="lost", B="lost"), expected_version=outdated)
        assert caught.value.code == "config_changed"
    assert plain(store.reader(tier_of(name)).read(environment(project, name))) == {"A": "2"}


@EVERY_TIER
def test_of_writers_with_one_expectation_one_wins(store: ConfigStore, project: str, name: str) -> None:
    def write(number: int) -> int | None:
        try:
            return store.writer().write(project, name, secrets(A=str(number)), expected_version=0)
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(write, range(8)))
    assert sorted(written, key=str) == [1, *[None] * 7]
    won = store.reader(tier_of(name)).read(environment(project, name))
    assert plain(won) == {"A": str(written.index(1))}


@EVERY_TIER
def test_concurrent_changes_to_other_keys_are_all_kept(store: ConfigStore, project: str, name: str) -> None:
    def write(number: int) -> list[int]:
        writer = store.writer()
        return [writer.write(project, name, secrets(**{f"K{number}_{step}": "x"})) for step in range(3)]

    with ThreadPoolExecutor(8) as threads:
        versions = [version for made in threads.map(write, range(8)) for version in made]
    assert sorted(versions) == list(range(1, 25))
    assert store.writer().keys(project, name) == (sorted(f"K{n}_{step}" for n in range(8) for step in range(3)), 24)


@EVERY_TIER
def test_a_pinned_version_that_is_gone_is_an_error(store: ConfigStore, project: str, name: str) -> None:
    writer, reader, place = store.writer(), store.reader(tier_of(name)), environment(project, name)
    for value in ("1", "2"):
        writer.write(project, name, secrets(A=value))
    store.delete(project, name, 1)
    assert code(lambda: reader.read(place, 1)) == "config_gone"
    assert code(lambda: reader.read(place, 3)) == "config_gone"
    assert plain(reader.read(place)) == {"A": "2"}


@EVERY_TIER
def test_nothing_runs_with_an_empty_config_because_the_newest_is_gone(
    store: ConfigStore, project: str, name: str
) -> None:
    writer, reader, place = store.writer(), store.reader(tier_of(name)), environment(project, name)
    writer.write(project, name, secrets(A="1"))
    store.delete(project, name, 1)
    assert code(lambda: reader.read(place)) == "config_gone"
    assert writer.keys(project, name) == ([], 1)
    assert writer.write(project, name, secrets(B="2"), expected_version=1) == 2
    assert plain(reader.read(place)) == {"B": "2"}


@EVERY_TIER
def test_a_config_that_is_too_large_is_not_written(store: ConfigStore, project: str, name: str) -> None:
    writer = store.writer()
    writer.write(project, name, secrets(**{f"K{number}": "x" * 100_000 for number in range(9)}))
    with pytest.raises(BadInput) as caught:
        writer.write(project, name, secrets(**{f"L{number}": "x" * 100_000 for number in range(3)}))
    assert caught.value.code == "config_too_large"
    assert writer.keys(project, name) == ([f"K{number}" for number in range(9)], 1)


@pytest.mark.parametrize("name", ["..", "a/b", "*", "", "Develop", "a\n", "+", "%2e"])
def test_names_cannot_point_elsewhere(store: ConfigStore, project: str, name: str) -> None:
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, name))) == "bad_name"
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(name, "develop"))) == "bad_name"
    assert code(lambda: store.writer().write(project, name, secrets(A="1"))) == "bad_name"
    assert code(lambda: store.writer().keys(name, "production")) == "bad_name"


def test_a_store_that_cannot_be_reached(store: ConfigStore, project: str) -> None:
    store.go_down()
    assert code(lambda: store.reader(Tier.NONPROD).read(environment(project, "develop"))) == "config_unreachable"
    assert code(lambda: store.writer().keys(project, "develop")) == "config_unreachable"
    assert code(lambda: store.writer().write(project, "production", secrets(A="1"))) == "config_unreachable"
