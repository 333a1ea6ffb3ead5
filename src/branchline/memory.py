"""Keeping a process small that lives for months: how it asks the C library for memory, and gives it back."""

from __future__ import annotations

import ctypes
import gc

_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's mallopt(3)."""


def few_heaps() -> None:
    """To be called before threads begin: a heap for each of many would keep what each of them once needed."""
    if change := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc has it, others need it less
        change(_ARENA_MAX, 2)


def settle() -> None:
    """Give back what only starting needed: a few per cent, for good. What is there now is taken to stay."""
    gc.collect()
    gc.freeze()
    give_back()


def give_back() -> None:
    """Give back what the C library keeps for later: for a process that has nothing to do for now."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
