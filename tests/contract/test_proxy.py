"""Proxy: the fake and Caddy keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from branchline.domain.deployment import Fence
from branchline.domain.errors import BranchlineError, Conflict, TakenOver
from branchline.ports import Route, Traffic
from tests.contract.proxy_worlds import CaddyWorld, FakeWorld, World, hostname, new_environment, wait_until


@pytest.fixture(scope="module")
def caddy_world() -> Iterator[CaddyWorld]:
    with CaddyWorld.running() as world:
        yield world


@pytest.fixture(params=["fake", pytest.param("caddy", marks=pytest.mark.stack)])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "fake":
        return FakeWorld()
    found: CaddyWorld = request.getfixturevalue("caddy_world")
    return found


def test_before_the_first_switch_nobody_answers(world: World) -> None:
    environment = new_environment()
    assert world.ask(hostname(environment)) is None
    assert world.proxy.routes(environment) == []


def test_a_switch_sends_traffic_and_repeating_it_changes_nothing(world: World) -> None:
    environment, target = new_environment(), world.target()
    for _ in range(2):
        world.proxy.switch(environment, [hostname(environment)], [Route("/", (target,))])
        assert world.ask(hostname(environment)) == target
        assert world.proxy.routes(environment) == [Route("/", (target,))]


def test_whether_it_leads_where_it_should(world: World) -> None:
    environment, target = new_environment(), world.target()
    names, routes = [hostname(environment), f"www.{hostname(environment)}"], [Route("/", (target,))]
    assert not world.proxy.leads(environment, names, routes)
    assert world.proxy.leads(environment, [], [])
    world.proxy.switch(environment, names, routes)
    assert world.proxy.leads(environment, names, routes)
    assert world.proxy.leads(environment, names[::-1], routes)
    assert not world.proxy.leads(environment, names[:1], routes)
    assert not world.proxy.leads(environment, names, [Route("/api", (target,))])
    assert not world.proxy.leads(environment, [], [])


def test_every_switch_leads_to_its_own_target(world: World) -> None:
    environment = new_environment()
    targets = [world.target() for _ in range(3)]
    for target in [*targets, *reversed(targets)]:
        world.proxy.switch(environment, [hostname(environment)], [Route("/", (target,))])
        assert world.ask(hostname(environment)) == target


@pytest.mark.parametrize("count", [2, 3, 8])
def test_all_targets_of_a_route_are_used(world: World, count: int) -> None:
    environment = new_environment()
    targets = tuple(world.target() for _ in range(count))
    world.proxy.switch(environment, [hostname(environment)], [Route("/", targets)])
    assert {world.ask(hostname(environment)) for _ in range(24)} == set(targets)


def test_the_longest_prefix_wins_and_prefixes_end_where_segments_do(world: World) -> None:
    environment = new_environment()
    root, api, v1 = (world.target() for _ in range(3))
    routes = [Route("/", (root,)), Route("/api", (api,)), Route("/api/v1", (v1,))]
    world.proxy.switch(environment, [hostname(environment)], routes)
    expected = {
        "/": root,
        "/apix": root,
        "/ap": root,
        "/x/api": root,
        "/API": root,
        "/api": api,
        "/api/": api,
        "/api/v2/x": api,
        "/api/v1x": api,
        "/api/v1": v1,
        "/api/v1/a/b/c/d/e/f/g/h/i/j/k": v1,
    }
    assert {path: world.ask(hostname(environment), path) for path in expected} == expected
    assert world.proxy.routes(environment) == routes


def test_where_no_prefix_fits_nobody_answers(world: World) -> None:
    environment, target = new_environment(), world.target()
    world.proxy.switch(environment, [hostname(environment)], [Route("/a/b/c/d/e/f/g/h", (target,))])
    assert world.ask(hostname(environment), "/a/b/c/d/e/f/g/h/i") == target
    assert world.ask(hostname(environment), "/a/b/c/d/e/f/g") is None


def test_hostnames_come_go_and_move(world: World) -> None:
    one, other = new_environment(), new_environment()
    first, second = world.target(), world.target()
    own, extra, third = hostname(one), f"www.{one.project}.example", f"shop.{one.project}.example"
    world.proxy.switch(one, [own, extra, third], [Route("/", (first,))])
    assert [world.ask(name) for name in (own, extra, third)] == [first] * 3
    world.proxy.switch(one, [own, third], [Route("/", (first,))])
    assert [world.ask(name) for name in (own, extra, third)] == [first, None, first]
    world.proxy.switch(other, [hostname(other), extra], [Route("/", (second,))])
    assert [world.ask(name) for name in (own, extra, third)] == [first, second, first]
    world.proxy.switch(one, [own], [Route("/", (first,))])
    assert [world.ask(name) for name in (own, extra, third)] == [first, second, None]


def test_removing_stops_the_answers_and_frees_the_hostname(world: World) -> None:
    one, other = new_environment(), new_environment()
    target, name = world.target(), hostname(one)
    world.proxy.switch(one, [name], [Route("/", (target,))])
    for _ in range(2):
        world.proxy.switch(one, [name], [])
        assert world.ask(name) is None
        assert world.proxy.routes(one) == []
    world.proxy.switch(other, [name], [Route("/", (target,))])
    assert world.ask(name) == target


def test_who_comes_late_changes_nothing(world: World) -> None:
    environment, first, second = new_environment(), world.target(), world.target()
    names = [hostname(environment)]
    world.proxy.switch(environment, names, [Route("/", (first,))], Fence(7, 1))
    world.proxy.switch(environment, names, [Route("/", (second,))], Fence(7, 2))
    for late in (Fence(7, 1), Fence(6, 9)):
        with pytest.raises(TakenOver):
            world.proxy.switch(environment, names, [Route("/", (first,))], late)
        with pytest.raises(TakenOver):
            world.proxy.switch(environment, names, [], late)
    assert world.ask(names[0]) == second
    world.proxy.switch(environment, names, [], Fence(8, 1))
    with pytest.raises(TakenOver):
        world.proxy.switch(environment, names, [Route("/", (second,))], Fence(7, 2))
    assert world.ask(names[0]) is None
    world.proxy.switch(environment, names, [Route("/", (first,))], Fence(8, 1))
    assert world.ask(names[0]) == first


def test_a_hostname_of_somebody_else_is_refused_and_nothing_changes(world: World) -> None:
    one, other = new_environment(), new_environment()
    first, second, third = (world.target() for _ in range(3))
    world.proxy.switch(one, [hostname(one)], [Route("/", (first,))])
    world.proxy.switch(other, [hostname(other)], [Route("/", (second,))])
    with pytest.raises(Conflict) as caught:
        world.proxy.switch(other, ["new.example", hostname(one)], [Route("/", (third,))])
    assert caught.value.code == "hostname_taken"
    assert hostname(one) in caught.value.sentence
    assert (world.ask(hostname(one)), world.ask(hostname(other)), world.ask("new.example")) == (first, second, None)


@pytest.mark.parametrize(
    ("routes", "code"),
    [
        ([Route(f"/{n}", ("10.0.0.1:80",)) for n in range(9)], "too_many_routes"),
        ([Route("/", tuple(f"10.0.0.{n}:80" for n in range(9)))], "too_many_routes"),
        ([Route("/a" * 9, ("10.0.0.1:80",))], "route_too_deep"),
        ([Route(f"/{'a' * 255}", ("10.0.0.1:80",))], "route_too_deep"),
    ],
)
def test_more_than_the_proxy_can_carry_is_refused(world: World, routes: list[Route], code: str) -> None:
    environment, target = new_environment(), world.target()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (target,))])
    with pytest.raises(BranchlineError) as caught:
        world.proxy.switch(environment, [hostname(environment)], routes)
    assert caught.value.code == code
    assert world.ask(hostname(environment)) == target


def test_eight_routes_with_eight_targets_fit(world: World) -> None:
    environment, target = new_environment(), world.target()
    others = tuple(f"255.255.255.25{n}:65535" for n in range(8))
    routes = [Route("/a", (target,)), *(Route(f"/{'x' * 200}{n}", others) for n in range(7))]
    world.proxy.switch(environment, [hostname(environment)], routes)
    assert world.ask(hostname(environment), "/a") == target
    assert world.proxy.routes(environment) == routes


def test_requests_that_are_not_finished_are_counted(world: World) -> None:
    environment, target, idle = new_environment(), world.target(), world.target()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (target,))])
    assert world.proxy.in_flight([target, idle]) == 0
    with world.busy(hostname(environment), target):
        assert world.proxy.in_flight([target, idle]) == 1
        assert world.proxy.in_flight([idle]) == 0
    wait_until(lambda: world.proxy.in_flight([target, idle]) == 0)


def test_traffic_counts_requests_and_errors_since_a_mark(world: World) -> None:
    one, other = new_environment(), new_environment()
    for environment in (one, other):
        world.proxy.switch(environment, [hostname(environment)], [Route("/", (world.target(),))])
    names = [hostname(one), "www.example"]
    world.provoke(hostname(one), 500)
    mark = world.proxy.mark()
    assert world.proxy.traffic(names, mark) == Traffic(0, 0)
    for status in (200, 404, 500, 503):
        world.provoke(hostname(one), status)
    world.provoke(hostname(other), 502)
    wait_until(lambda: world.proxy.traffic(names, mark).requests == 4)
    assert world.proxy.traffic(names, mark) == Traffic(4, 2)
    assert world.proxy.traffic([hostname(other)], mark) == Traffic(1, 1)
