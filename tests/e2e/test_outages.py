"""Servers beneath the platform that are away: for a while, or for ever. It is told well, and the sites serve on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from branchline.stack.ledger import SUPERVISOR, Ledger
from tests.e2e.duo import ROAD, Duo
from tests.e2e.holding import Holding
from tests.e2e.platform import Repository
from tests.openbao import Caller, operator

pytestmark = pytest.mark.e2e

BENEATH = ("registry", "openbao", "postgres-nonprod")
NEEDY = ("test", "publish", "prepare", "release", "start")
"""Stages that need one of them."""

ANSWER = 10.5
"""Seconds after which the API says that the platform's own database does not answer."""


def family(duo: Duo, part: str) -> list[psutil.Process]:
    """A part's process, and those that it started."""
    entry = Ledger(duo.layout.run).read(part)
    assert entry
    assert entry.identity
    head = psutil.Process(entry.identity.pid)
    return [head, *head.children(recursive=True)]


@contextmanager
def gone(duo: Duo, *parts: str) -> Iterator[None]:
    """These parts are dead, and nobody starts them again before the end of the block."""
    duo.signal(signal.SIGSTOP, SUPERVISOR)
    try:
        duo.kill(*parts)
        yield
    finally:
        duo.signal(signal.SIGCONT, SUPERVISOR)
    duo.settled()


@contextmanager
def frozen(duo: Duo, *parts: str) -> Iterator[None]:
    """These parts accept connections, and say nothing."""
    stopped = [process for part in parts for process in family(duo, part)]
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()
    duo.settled()


@pytest.mark.parametrize(("outage", "seconds"), [(gone, 30), (frozen, 30)], ids=["gone", "frozen"])
def test_an_outage_of_half_a_minute_is_waited_for(
    duo: Duo, holding: Holding, sites: dict[str, Repository], outage: type, seconds: float
) -> None:
    """Registry, vault and databases at once, while deployments are about to need them."""
    duo.settled()
    version = f"outage-{time.monotonic_ns()}"
    with duo.visited([f"develop-at-{stage}.localhost" for stage in NEEDY]) as failures:
        with holding.at([(f"at-{stage}", stage, "begin") for stage in NEEDY]) as held:
            for stage in NEEDY:
                duo.push(sites[stage], version)
            asked = {stage: duo.request(f"at-{stage}").json()["id"] for stage in NEEDY}
            held.wait()
            with outage(duo, *BENEATH):
                began = time.monotonic()
                held.release()
                time.sleep(seconds - (time.monotonic() - began))
                states = {stage: duo.deployment(number)["state"] for stage, number in asked.items()}
                assert set(states.values()) == {"running"}, states
        ended = {stage: duo.ended(number) for stage, number in asked.items()}
    for stage, number in asked.items():
        assert ended[stage]["state"] == "succeeded", duo.log(number)
        duo.check_story(number, ROAD)
        if outage is gone:
            assert "Trying again in" in duo.log(number)
    assert failures == [], failures[:5]


@contextmanager
def sealed(duo: Duo) -> Iterator[None]:
    """The config store answers, and opens for nobody before it is started anew at the end of the block."""
    store = f"http://127.0.0.1:{duo.layout.ports.openbao}"
    duo.signal(signal.SIGSTOP, SUPERVISOR)
    try:
        assert operator(store, duo.layout).ask("POST", "sys/seal").status_code == 204
        until = time.monotonic() + 20
        while not Caller(store).ask("GET", "sys/seal-status").json()["sealed"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
        duo.kill("openbao")
    finally:
        duo.signal(signal.SIGCONT, SUPERVISOR)
    duo.settled()


def test_a_sealed_store_is_waited_for(duo: Duo, holding: Holding, sites: dict[str, Repository]) -> None:
    duo.settled()
    with duo.visited(["develop-at-prepare.localhost"]) as failures:
        with holding.at([("at-prepare", "prepare", "begin")]) as held:
            duo.push(sites["prepare"], f"sealed-{time.monotonic_ns()}")
            number = duo.request("at-prepare").json()["id"]
            held.wait()
            with sealed(duo):
                held.release()
                time.sleep(10)
                assert duo.deployment(number)["state"] == "running", duo.log(number)
        done = duo.ended(number)
    assert done["state"] == "succeeded", duo.log(number)
    duo.check_story(number, ROAD)
    log = duo.log(number)
    assert "sealed" in log
    assert "Trying again in" in log
    assert failures == [], failures[:5]


@pytest.fixture(scope="module")
def shops(impatient: Duo) -> dict[str, Repository]:
    """A project for each stage that needs somebody, live, on a platform of little patience."""
    without_database = {
        "databases:\n  default: {engine: postgres, variable: DATABASE_URL}\n": "",
        ", databases: [default]": "",
    }
    changes = {"test": None, "publish": None, "prepare": without_database, "start": None}
    made = {stage: impatient.quick_project(f"shop-{stage}", change) for stage, change in changes.items()}
    for number in request_all(impatient, made, "0").values():
        assert impatient.ended(number)["state"] == "succeeded", impatient.log(number)
    return made


def request_all(duo: Duo, shops: dict[str, Repository], version: str) -> dict[str, int]:
    """Ask for a new commit of each project."""
    asked = {}
    for stage, repository in shops.items():
        repository.write({"note": f"{time.monotonic_ns()}"})
        duo.push(repository, version)
        asked[stage] = duo.request(f"shop-{stage}").json()["id"]
    return asked


def test_an_outage_for_ever_ends_as_broken_and_users_keep_the_old_release(
    impatient: Duo, shops: dict[str, Repository]
) -> None:
    impatient.settled()
    codes = {
        "test": "database_unreachable",
        "publish": "registry_unreachable",
        "prepare": "config_unreachable",
        "start": "database_unreachable",
    }
    places = [(f"shop-{stage}", stage, "begin") for stage in shops]
    hosts = [f"develop-shop-{stage}.localhost" for stage in shops]
    with impatient.visited(hosts) as failures, Holding(impatient.layout).at(places) as held:
        asked = request_all(impatient, shops, "never")
        held.wait()
        with gone(impatient, *BENEATH):
            held.release()
            released = time.monotonic()
            ended = {stage: impatient.ended(number, within=40) for stage, number in asked.items()}
            took = time.monotonic() - released
    for stage, done in ended.items():
        assert (done["state"], done["failed_stage"]) == ("broken", stage), impatient.log(asked[stage])
        assert done["failure"]["code"] == codes[stage]
        assert done["failure"]["sentence"].endswith(".")
        assert done["failure"]["hint"]
        assert "Traceback" not in impatient.log(asked[stage])
        assert impatient.version(f"shop-{stage}") == "0"
    assert 4 <= took < 35
    assert failures == [], failures[:5]
    for number in request_all(impatient, shops, "0").values():
        assert impatient.ended(number)["state"] == "succeeded", impatient.log(number)


@pytest.mark.parametrize("outage", [gone, frozen])
def test_the_platforms_own_database_away_for_longer_than_all_patience(
    impatient: Duo, shops: dict[str, Repository], outage: type
) -> None:
    """The API says so in time, and deployments go on where they were."""
    impatient.settled()
    with impatient.visited([f"develop-shop-{stage}.localhost" for stage in shops]) as failures:
        asked = request_all(impatient, shops, "0")
        impatient.stage(asked["test"], "build")
        with outage(impatient, "postgres-platform"):
            began = time.monotonic()
            answer = httpx.get(
                f"http://127.0.0.1:{impatient.layout.ports.server}/api/v1/projects",
                headers={"Authorization": f"Bearer {(impatient.home / 'admin.token').read_text().strip()}"},
                timeout=30,
            )
            assert time.monotonic() - began < ANSWER
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unreachable")
            time.sleep(max(0.0, 30 - (time.monotonic() - began)))
        ended = {stage: impatient.ended(number) for stage, number in asked.items()}
    for stage, number in asked.items():
        assert ended[stage]["state"] == "succeeded", impatient.log(number)
        impatient.check_story(number, ROAD)
    assert failures == [], failures[:5]
