"""Giving up rights for good: a process of root becomes one of an account, and can get none of them back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from branchline.stack.process import User

_SET_DUMPABLE = 4
_CAPBSET_DROP = 24
_SET_NO_NEW_PRIVS = 38
"""Of prctl(2)."""


def give_up(user: User) -> None:
    """Become this account: its only group, no capability, no program that would give rights, no core file.

    Other processes of the account cannot look into this one either, until it runs another program. Raises OSError where
    anything of that cannot be done; then the process must not go on.
    """
    for capability in range(_last_capability() + 1):
        _prctl(_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_DUMPABLE, 0)


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
