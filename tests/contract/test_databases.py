"""Databases: the fake and PostgreSQL keep the same promises."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from branchline.domain.config import Secret
from branchline.domain.environment import Environment, tier_of
from branchline.domain.errors import BranchlineError
from branchline.ports import Databases
from tests.fakes.databases import FakeDatabases
from tests.postgres import RealServer


class Server(Protocol):
    """The nonprod server with what tests do to it; `databases` gives what another runner would have."""

    def databases(self) -> Databases: ...

    def add_table(self, url: Secret, name: str) -> None: ...

    def tables(self, url: Secret) -> set[str]: ...

    def exists(self, url: Secret) -> bool: ...

    def go_down(self) -> None: ...


class FakeServer:
    def __init__(self) -> None:
        self._fake = FakeDatabases(tier_of("develop"))

    def databases(self) -> FakeDatabases:
        return self._fake

    def add_table(self, url: Secret, name: str) -> None:
        self._fake.tables[url.reveal()].add(name)

    def tables(self, url: Secret) -> set[str]:
        return self._fake.tables[url.reveal()]

    def exists(self, url: Secret) -> bool:
        return url.reveal() in self._fake.tables

    def go_down(self) -> None:
        self._fake.go_down()


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.stack)])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "fake":
        return FakeServer()
    return RealServer(request.getfixturevalue("postgres_nonprod"))


def place(project: str | None = None, name: str = "develop") -> Environment:
    return Environment(1, project or f"p{uuid.uuid4().hex[:12]}", name, tier_of(name), 1)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(BranchlineError) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


def test_a_database_stays_what_it_is(server: Server) -> None:
    environment = place()
    url = server.databases().ensure(environment, "default")
    server.add_table(url, "orders")
    assert server.databases().ensure(environment, "default") == url
    assert server.tables(url) == {"orders"}


def test_every_environment_has_its_own(server: Server) -> None:
    develop = place()
    urls = [
        server.databases().ensure(environment, database)
        for environment in (develop, place(develop.project, "feature"), place(develop.project + "x"))
        for database in ("default", "events")
    ]
    assert len(set(urls)) == 6
    server.add_table(urls[0], "orders")
    assert [server.tables(url) for url in urls] == [{"orders"}, *[set()] * 5]


def test_names_that_look_alike_are_not_mixed_up(server: Server) -> None:
    mark = f"p{uuid.uuid4().hex[:6]}"
    places = [place(f"{mark}-a", "b"), place(mark, "a-b"), place(f"{mark}-a-b", "c"), place(f"{mark}-a", "b-c")]
    long = [place(f"{mark}-{'x' * 24}{end}", f"{'e' * 31}{other}") for end in "ab" for other in "cd"]
    urls = [server.databases().ensure(environment, "d" * 31 + "z") for environment in places + long]
    assert len(set(urls)) == 8


def test_a_scratch_database_is_made_anew(server: Server) -> None:
    environment = place()
    databases = server.databases()
    kept = databases.ensure(environment, "default")
    server.add_table(kept, "orders")
    url = databases.ensure_scratch(environment, "default", "test")
    assert url != kept
    server.add_table(url, "junk")
    assert databases.ensure_scratch(environment, "default", "test") == url
    assert server.tables(url) == set()
    assert server.tables(kept) == {"orders"}


def test_a_scratch_database_goes_for_good(server: Server) -> None:
    environment = place()
    databases = server.databases()
    kept = databases.ensure(environment, "default")
    urls = [databases.ensure_scratch(environment, "default", name) for name in ("one", "two")]
    for _ in range(2):
        databases.drop_scratch(environment, "default", "one")
    assert [server.exists(url) for url in [*urls, kept]] == [False, True, True]
    databases.drop_scratch(environment, "default", "never-made")


def test_many_at_once_get_the_same(server: Server) -> None:
    environment = place()
    with ThreadPoolExecutor(4) as threads:
        urls = list(threads.map(lambda _: server.databases().ensure(environment, "default"), range(8)))
    assert len(set(urls)) == 1
    assert server.tables(urls[0]) == set()


def test_many_at_once_make_their_own(server: Server) -> None:
    places = [place() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        urls = list(threads.map(lambda environment: server.databases().ensure(environment, "default"), places))
        scratches = list(
            threads.map(lambda environment: server.databases().ensure_scratch(environment, "default", "test"), places)
        )
    assert len({*urls, *scratches}) == 12
    assert all(map(server.exists, [*urls, *scratches]))


def test_the_other_tier_is_refused(server: Server) -> None:
    production = place(name="production")
    assert code(lambda: server.databases().ensure(production, "default")) == "database_refused"
    assert code(lambda: server.databases().ensure_scratch(production, "default", "test")) == "database_refused"
    assert code(lambda: server.databases().drop_scratch(production, "default", "test")) == "database_refused"


def test_a_server_that_is_down(server: Server) -> None:
    server.go_down()
    assert code(lambda: server.databases().ensure(place(), "default")) == "database_unreachable"
    assert code(lambda: server.databases().drop_scratch(place(), "default", "test")) == "database_unreachable"
