"""Patience: by the clock, whatever an attempt itself takes."""

from __future__ import annotations

import pytest

from branchline.operations.patience import Patience


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("attempt", [0.0, 5.0, 30.0])
def test_attempts_count_as_well_as_pauses(attempt: float) -> None:
    clock = Clock()
    patience = Patience(60, clock)
    clock.now += attempt
    failed, tries = clock.now, 1
    while (pause := patience.next_pause()) is not None:
        clock.now += pause + attempt
        tries += 1
    assert 60 <= clock.now - failed <= 60 + attempt
    assert tries == {0.0: 12, 5.0: 8, 30.0: 3}[attempt]


def test_nothing_counts_before_the_first_failure() -> None:
    clock = Clock()
    patience = Patience(10, clock)
    clock.now += 1800
    assert patience.next_pause() == 0.5


def test_the_last_pause_ends_with_the_patience() -> None:
    clock = Clock()
    patience = Patience(0.7, clock)
    pauses = []
    while (pause := patience.next_pause()) is not None:
        pauses.append(pause)
        clock.now += pause
    assert pauses == [0.5, pytest.approx(0.2)]
