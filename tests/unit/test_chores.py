"""Chores are done again and again, by one runner of a tier at a time, whatever goes wrong in one round."""

from __future__ import annotations

import threading

from branchline.domain.errors import Unreachable
from branchline.operations.chores import Chore, Chores
from tests.fakes.store import MemoryStore


def test_a_chore_is_done_again_and_again() -> None:
    rounds, enough = [], threading.Event()

    def run() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            enough.set()

    chores = Chores(MemoryStore(), "nonprod", [Chore("sweep", 0.01, run)], lambda *_: None)
    chores.begin()
    assert enough.wait(5)
    chores.end()


def test_while_another_runner_of_the_tier_is_at_it_nothing_is_done() -> None:
    store, done = MemoryStore(), []
    chore = Chore("sweep", 60, lambda: done.append(1))
    chores = Chores(store, "nonprod", [chore], lambda *_: None)
    with store.alone("sweep-nonprod"):
        chores.do(chore)
    assert done == []
    with store.alone("sweep-production"):
        chores.do(chore)
    assert done == [1]


def test_a_round_that_goes_wrong_is_told_and_leaves_the_name_free() -> None:
    said: list[tuple[str, str]] = []

    def away() -> None:
        raise Unreachable("Docker cannot be reached.")

    def faulty() -> None:
        raise KeyError("label")

    store = MemoryStore()
    chores = Chores(store, "nonprod", [], lambda *words: said.append(words))
    chores.do(Chore("sweep", 60, away))
    chores.do(Chore("mend", 60, faulty))
    assert said == [("sweep", "Docker cannot be reached."), ("mend", "KeyError: 'label'")]
    assert not any(store.held.values())
