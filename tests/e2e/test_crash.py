"""kill -9 of every part of the platform at every stage: each deployment ends as if nothing had been."""

from __future__ import annotations

import time

import pytest

from tests.e2e.duo import ROAD, RUNNERS, SITES, UNDONE, Duo
from tests.e2e.holding import Holding
from tests.e2e.platform import Repository

pytestmark = pytest.mark.e2e

CADDY_GAP = 6.0
"""Seconds in which nobody answers while the proxy is started again: no other part may cost users a single request."""


@pytest.mark.parametrize(
    ("victims", "moment"),
    [
        pytest.param(RUNNERS, "begin", id="runner-begin"),
        pytest.param(RUNNERS, "end", id="runner-end"),
        *(
            pytest.param([part], moment, id=f"{part}-{moment}")
            for part in ("server", "postgres-platform", "postgres-nonprod", "openbao", "registry", "caddy")
            for moment in ("begin", "end")
        ),
    ],
)
def test_a_part_is_killed_at_every_stage(
    duo: Duo, holding: Holding, sites: dict[str, Repository], victims: list[str], moment: str
) -> None:
    """Twelve deployments, each held at another stage, lose a part of the platform in the same instant."""
    duo.settled()
    version = f"{moment}-{victims[0]}-{time.monotonic_ns()}"
    hosts = [f"develop-at-{stage}.localhost" for stage in SITES]
    with duo.visited(hosts) as failures:
        with holding.at([(f"at-{stage}", stage, moment) for stage in SITES]) as held:
            for stage, repository in sites.items():
                duo.push(repository, version, fault="sick" if stage == "undo" else "")
            asked = {stage: duo.request(f"at-{stage}").json()["id"] for stage in SITES}
            held.wait()
            assert duo.kill(*victims) == list(victims), "it was dead already"
            killed = time.monotonic()
        ended = {stage: duo.ended(number) for stage, number in asked.items()}
        duo.settled()
    states = {stage: done["state"] for stage, done in ended.items()}
    wanted = {stage: "undone" if stage == "undo" else "succeeded" for stage in SITES}
    assert states == wanted, "\n".join(duo.log(asked[one])[-2000:] for one in SITES if states[one] != wanted[one])
    if victims == ["caddy"]:
        failures = [one for one in failures if not killed <= one[0] <= killed + CADDY_GAP]
    # What a sick release itself answers is no failure of the platform, but the reason to undo it.
    failures = [one for one in failures if one[1:] != ("develop-at-undo.localhost", "HTTP 500")]
    assert failures == [], failures[:5]
    for stage in SITES:
        live = ended[stage]["replaces"] if stage == "undo" else asked[stage]
        duo.check_place(f"at-{stage}", live)
        assert (duo.version(f"at-{stage}") == version) is (stage != "undo")
        duo.check_story(asked[stage], UNDONE if stage == "undo" else ROAD)


def test_the_runners_are_killed_while_commands_run(duo: Duo) -> None:
    """In the middle of a build, of tests and of a release command: what runs on is joined, what died is done anew."""
    duo.settled()
    slow = {
        "build": ("Dockerfile", "WORKDIR /app", "RUN sleep 2.5\nWORKDIR /app"),
        "test": (
            "branchline.yaml",
            "command: python3 test_app.py",
            "command: sh -c 'sleep 2.5 && python3 test_app.py'",
        ),
        "release": ("branchline.yaml", "print('migrated", "import time; time.sleep(2.5); print('migrated"),
    }
    asked = {}
    for stage, change in slow.items():
        repository = duo.quick_project(f"while-{stage}")
        repository.change(*change)
        duo.push(repository, "1")
        asked[stage] = duo.request(f"while-{stage}").json()["id"]
    for stage, number in asked.items():
        duo.stage(number, stage)
    time.sleep(0.7)
    duo.kill(*RUNNERS)
    for stage, number in asked.items():
        assert duo.ended(number)["state"] == "succeeded", duo.log(number)
        duo.check_place(f"while-{stage}", number)
        duo.check_story(number, ROAD)
