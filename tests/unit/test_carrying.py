"""What a process carries: how much of it is work, and which of it hangs."""

from __future__ import annotations

from branchline.domain.pipeline import Stage
from branchline.operations.carrying import BETWEEN_STAGES, MARGIN, Carrying


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_those_behind_the_switch_are_no_work() -> None:
    carrying, moved = Carrying(), []
    carrying.moved = lambda: moved.append(carrying.working)
    carrying.at(1, None)
    carrying.at(2, Stage.BUILD, 60)
    assert (carrying.all, carrying.working, moved) == ([1, 2], 2, [])
    carrying.at(2, Stage.SWITCH, 60)
    carrying.at(2, None)
    carrying.at(2, Stage.WATCH, 60)
    assert (carrying.working, moved) == (1, [1])
    carrying.leave(2)
    carrying.leave(2)
    assert (carrying.all, moved[-1]) == ([1], 1)


def test_a_stage_hangs_when_it_does_not_heed_its_limit() -> None:
    clock = Clock()
    carrying = Carrying(clock)
    carrying.at(7, Stage.BUILD, 60)
    clock.now += 60 + MARGIN
    assert carrying.hanging() is None
    clock.now += 1
    assert carrying.hanging() == (7, Stage.BUILD)
    carrying.at(7, None)
    assert carrying.hanging() is None
    clock.now += BETWEEN_STAGES + 1
    assert carrying.hanging() == (7, None)
    carrying.leave(7)
    assert carrying.hanging() is None
