"""What the doctor says of the memory in which secrets are files."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.stack.doctor import SHARED, Finding, memory

RUN = Path("/run")
HEAD = "Filename\tType\tSize\tUsed\tPriority\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with systemd and without swap."""
    for folder in ("run/systemd/system", "etc/systemd/logind.conf.d", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/swaps").write_text(HEAD)
    return tmp_path


def wrong(found: list[Finding]) -> list[str]:
    assert all(one.hint for one in found if not one.well)
    return [one.text for one in found if not one.well]


@pytest.mark.parametrize(("root", "user", "well"), [(SHARED, 1000, False), (SHARED, 999, True), (RUN, 1000, True)])
def test_shared_memory_does_not_outlive_a_persons_login(machine: Path, root: Path, user: int, well: bool) -> None:
    found = list(memory(root, user, machine))
    assert [one.well for one in found] == [well]
    assert str(root) in found[0].text
    assert all("emptied when user 1000 logs out" in text for text in wrong(found))


def test_it_does_where_logind_is_told_so_or_is_not_there(machine: Path) -> None:
    settings = machine / "etc/systemd/logind.conf"
    settings.write_text("[Login]\n#RemoveIPC=no\n")
    assert wrong(list(memory(SHARED, 1000, machine)))
    settings.write_text("[Login]\nRemoveIPC=no\n")
    assert not wrong(list(memory(SHARED, 1000, machine)))
    (machine / "etc/systemd/logind.conf.d/99.conf").write_text("[Login]\nRemoveIPC = yes\n")
    assert wrong(list(memory(SHARED, 1000, machine)))
    (machine / "run/systemd/system").rmdir()
    assert not wrong(list(memory(SHARED, 1000, machine)))


def test_swap_on_a_disk_is_told_and_no_fault(machine: Path) -> None:
    (machine / "proc/swaps").write_text(f"{HEAD}/dev/zram0 partition 1 0 100\n")
    assert [one.subject for one in memory(RUN, 0, machine)] == ["secrets"]
    (machine / "proc/swaps").write_text(f"{HEAD}/dev/zram0 partition 1 0 100\n/dev/sda2 partition 1 0 -2\n")
    *_, swap = memory(RUN, 0, machine)
    assert (swap.subject, swap.well, "/dev/sda2" in swap.text, "zram" in swap.text) == ("swap", True, True, False)
    assert "swapoff" in swap.hint
