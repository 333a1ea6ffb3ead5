"""Secrets as files: only in memory, only where they belong, and nothing left of who was killed."""

from __future__ import annotations

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
        files.write(PLACE, 7, "service-web", values)
    assert caught.value.hint
    return caught.value.code


def test_each_deployment_has_its_own_until_it_goes(files: SecretFiles, memory: Path) -> None:
    first, second = files.write(PLACE, 7, "service-web", VALUES), files.write(PLACE, 8, "service-web", VALUES)
    assert first == files.write(PLACE, 7, "service-web", VALUES)
    assert {path.name: path.read_text() for path in second.iterdir()} == {"A": "one", "B": "two"}
    assert files.deployments(PLACE) == {7, 8}
    files.remove(PLACE, 7)
    assert files.deployments(PLACE) == {8}
    files.remove_all(PLACE)
    files.remove_all(PLACE)
    assert list(memory.iterdir()) == [memory / "branchline-blue"]
    assert list((memory / "branchline-blue").iterdir()) == []


def test_each_user_has_a_folder_of_their_own(files: SecretFiles) -> None:
    web = files.write(PLACE, 7, "service-web", VALUES)
    command = files.write(PLACE, 7, "command-release", {"A": Secret("three")})
    assert {path.name: path.read_text() for path in command.iterdir()} == {"A": "three"}
    files.remove(PLACE, 7, "command-release")
    assert (web.is_dir(), command.exists()) == (True, False)
    assert list(files.write(PLACE, 7, "service-idle", {}).iterdir()) == []
    files.remove(PLACE, 7)
    assert not web.parent.exists()


def test_what_somebody_removed_is_noticed(files: SecretFiles, tmp_path: Path) -> None:
    folder = files.write(PLACE, 7, "service-web", VALUES)
    empty = files.write(PLACE, 7, "service-idle", {})
    assert files.whole(folder)
    assert files.whole(empty)
    (folder / "B").unlink()
    assert not files.whole(folder)
    files.write(PLACE, 7, "service-web", VALUES)
    assert files.whole(folder)
    for one in (folder, empty):
        shutil.rmtree(one)
        assert not files.whole(one)
    assert not files.whole(tmp_path), "that is none of ours"


def test_files_of_before_they_were_listed_count_as_long_as_there_are_any(files: SecretFiles) -> None:
    folder = files.write(PLACE, 7, "service-web", VALUES)
    folder.with_name("service-web.names").unlink()
    assert files.whole(folder)
    for path in folder.iterdir():
        path.unlink()
    assert not files.whole(folder)
    # A version before gave all services of a deployment one folder.
    assert not files.whole(folder.parent), "what is there now is for others"
    (folder.parent / "A").write_text("one")
    assert files.whole(folder.parent)


def test_they_are_never_written_to_a_disk(tmp_path: Path, memory: Path) -> None:
    assert code(SecretFiles("blue", (tmp_path, tmp_path / "none"))) == "no_memory_folder"
    assert list(tmp_path.iterdir()) == [memory]
    assert SecretFiles("blue", (tmp_path, memory)).write(PLACE, 7, "service-web", VALUES).is_relative_to(memory)


@pytest.mark.parametrize("name", ["../A", "/etc/A", "..", "", "A/B", "A\0", "A\n"])
def test_no_name_leads_elsewhere(files: SecretFiles, memory: Path, name: str) -> None:
    with pytest.raises(BadInput):
        files.write(PLACE, 7, "service-web", {name: Secret("x")})
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
    folder = files.write(PLACE, 7, "service-web", VALUES)
    (folder / ".A.new").write_text("hal")
    (folder / "A").unlink()
    files.write(PLACE, 7, "service-web", VALUES)
    assert sorted(path.name for path in folder.iterdir()) == ["A", "B"]


def test_what_is_needed_for_a_moment_is_there_for_no_longer(files: SecretFiles, memory: Path) -> None:
    with files.for_a_moment(VALUES) as first, files.for_a_moment({"A": Secret("three")}) as second:
        assert {key: path.read_text() for key, path in first.items()} == {"A": "one", "B": "two"}
        assert second["A"].read_text() == "three"
        modes = {path.stat().st_mode & 0o777 for path in (*first.values(), *(one.parent for one in first.values()))}
        assert modes == {0o600, 0o700}
    assert [path for path in memory.rglob("*") if path.is_file()] == []
    with pytest.raises(PlatformBroke) as caught, files.for_a_moment({"A": Secret("x" * 100_000)}):
        raise AssertionError("there is no room for it")
    assert caught.value.code == "memory_full"
    assert [path for path in memory.rglob("*") if path.is_file()] == []


def test_what_a_killed_process_needed_for_a_moment_goes(files: SecretFiles) -> None:
    with files.for_a_moment(VALUES) as mine:
        process = mine["A"].parents[1]
        ended = subprocess.Popen(["true"])
        ended.wait()
        pid = process.name.partition("-")[0]
        of_a_version_before = process.with_name(pid) / "build-x"
        of_a_version_before.mkdir(parents=True)
        for name in (f"{ended.pid}-1", f"{pid}-1", str(ended.pid)):  # gone, or gone and of a number that is used again
            (process.with_name(name) / "x").mkdir(parents=True)
            (process.with_name(name) / "x" / "0").write_text("hush")
        files.forget_moments()
        assert sorted(process.parent.iterdir()) == [of_a_version_before.parent, process]
        assert mine["A"].read_text() == "one"


def test_two_platforms_do_not_meet(memory: Path) -> None:
    blue, green = SecretFiles("blue", (memory,)), SecretFiles(uuid4().hex, (memory,))
    blue.write(PLACE, 7, "service-web", VALUES)
    green.remove_all(PLACE)
    assert (green.deployments(PLACE), blue.deployments(PLACE)) == (set(), {7})
