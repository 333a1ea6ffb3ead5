"""Secrets as files: only in memory, only where they belong, and nothing left of who was killed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from branchline.adapters.secret_files import SecretFiles
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import BadInput, PlatformBroke
from tests.full import small_disk

PLACE = Environment(1, "shop", "develop", Tier.NONPROD, 1)
VALUES = {"A": Secret("one"), "B": Secret("two")}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory."""
    with small_disk(tmp_path / "memory", "64K"):
        yield tmp_path / "memory"


@pytest.fixture
def files(memory: Path) -> SecretFiles:
    return SecretFiles("blue", (memory,))


def code(files: SecretFiles, values: dict[str, Secret] = VALUES) -> str:
    with pytest.raises(PlatformBroke) as caught:
        files.write(PLACE, 7, values)
    assert caught.value.hint
    return caught.value.code


def test_each_deployment_has_its_own_until_it_goes(files: SecretFiles, memory: Path) -> None:
    first, second = files.write(PLACE, 7, VALUES), files.write(PLACE, 8, VALUES)
    assert first == files.write(PLACE, 7, VALUES)
    assert {path.name: path.read_text() for path in second.iterdir()} == {"A": "one", "B": "two"}
    assert files.deployments(PLACE) == {7, 8}
    files.remove(PLACE, 7)
    assert files.deployments(PLACE) == {8}
    files.remove_all(PLACE)
    files.remove_all(PLACE)
    assert list(memory.iterdir()) == [memory / "branchline-blue"]
    assert list((memory / "branchline-blue").iterdir()) == []


def test_what_somebody_removed_is_noticed(files: SecretFiles) -> None:
    assert not files.whole(PLACE, 7)
    folder = files.write(PLACE, 7, {**VALUES, "OF_THE_RELEASE_COMMAND": Secret("three")})
    files.write(PLACE, 7, VALUES)
    (folder / "OF_THE_RELEASE_COMMAND").unlink()
    assert files.whole(PLACE, 7)
    (folder / "B").unlink()
    assert not files.whole(PLACE, 7)
    files.write(PLACE, 7, VALUES)
    assert files.whole(PLACE, 7)
    shutil.rmtree(folder)
    assert not files.whole(PLACE, 7)
    files.write(PLACE, 8, VALUES)
    files.remove(PLACE, 7)
    files.remove(PLACE, 8)
    assert list(folder.parent.iterdir()) == []


def test_files_of_before_they_were_listed_count_as_long_as_there_are_any(files: SecretFiles) -> None:
    folder = files.write(PLACE, 7, VALUES)
    folder.with_name("d7.names").unlink()
    assert files.whole(PLACE, 7)
    for path in folder.iterdir():
        path.unlink()
    assert not files.whole(PLACE, 7)


def test_they_are_never_written_to_a_disk(tmp_path: Path, memory: Path) -> None:
    assert code(SecretFiles("blue", (tmp_path, tmp_path / "none"))) == "no_memory_folder"
    assert list(tmp_path.iterdir()) == [memory]
    assert SecretFiles("blue", (tmp_path, memory)).write(PLACE, 7, VALUES).is_relative_to(memory)


@pytest.mark.parametrize("name", ["../A", "/etc/A", "..", "", "A/B", "A\0", "A\n"])
def test_no_name_leads_elsewhere(files: SecretFiles, memory: Path, name: str) -> None:
    with pytest.raises(BadInput):
        files.write(PLACE, 7, {name: Secret("x")})
    assert [path for path in memory.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("how", ["open", "link", "file"])
def test_a_folder_of_our_name_that_is_not_ours_is_not_touched(
    files: SecretFiles, memory: Path, tmp_path: Path, how: str
) -> None:
    ours, elsewhere = memory / "branchline-blue", tmp_path / "elsewhere"
    (elsewhere / PLACE.key / "d7").mkdir(parents=True)
    if how == "open":
        ours.mkdir(mode=0o755)
    elif how == "link":
        ours.symlink_to(elsewhere)
    else:
        ours.touch()
    assert code(files) == "memory_folder_taken"
    files.remove(PLACE, 7)
    files.remove_all(PLACE)
    assert (elsewhere / PLACE.key / "d7").is_dir()


def test_memory_that_is_full_says_so(files: SecretFiles) -> None:
    assert code(files, {f"K{number}": Secret("x" * 30_000) for number in range(3)}) == "memory_full"


def test_what_a_killed_writer_left_is_taken_over(files: SecretFiles) -> None:
    folder = files.write(PLACE, 7, VALUES)
    (folder / ".A.new").write_text("hal")
    (folder / "A").unlink()
    files.write(PLACE, 7, VALUES)
    assert sorted(path.name for path in folder.iterdir()) == ["A", "B"]


def test_what_a_killed_process_needed_for_a_moment_goes(files: SecretFiles) -> None:
    mine = files.scratch()
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = mine.with_name(str(ended.pid))
    left.mkdir()
    (left / "0").write_text("hush")
    assert files.scratch() == mine
    assert [path.name for path in mine.parent.iterdir()] == [str(os.getpid())]


def test_two_platforms_do_not_meet(memory: Path) -> None:
    blue, green = SecretFiles("blue", (memory,)), SecretFiles(uuid4().hex, (memory,))
    blue.write(PLACE, 7, VALUES)
    green.remove_all(PLACE)
    assert (green.deployments(PLACE), blue.deployments(PLACE)) == (set(), {7})
