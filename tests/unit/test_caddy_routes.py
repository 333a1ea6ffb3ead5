"""The routes folder on disk: what is kept, what is cleaned up, and what happens when it cannot be written."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.caddy_routes import RoutesFolder
from branchline.domain.errors import PlatformBroke, TimedOut

ROUTES = {"/": ["10.0.0.1:80"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "routes"


@pytest.fixture
def tight_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def generations(folder: Path) -> list[Path]:
    return sorted(folder.glob("environments/shop/g-*"))


def put(routes: RoutesFolder, number: int) -> None:
    routes.put("shop", ["a.example"], {"/": [f"10.0.0.{number}:80"]})


def test_replaced_generations_stay_for_a_while(folder: Path) -> None:
    patient, hasty = RoutesFolder(folder), RoutesFolder(folder, keep=0.0)
    for number in range(5):
        put(patient, number)
    assert len(generations(folder)) == 5
    put(hasty, 5)
    assert generations(folder) == [(folder / "environments/shop/live").resolve()]
    assert hasty.read("shop") == {"/": ["10.0.0.5:80"]}


def test_repeating_makes_no_new_generation(folder: Path) -> None:
    routes = RoutesFolder(folder)
    put(routes, 1)
    put(routes, 1)
    assert len(generations(folder)) == 1


def test_what_a_dead_process_left_is_cleaned_up(folder: Path) -> None:
    routes = RoutesFolder(folder, keep=0.0)
    put(routes, 1)
    half = folder / "environments/shop/g-9999999999999999999"
    (half / "hosts").mkdir(parents=True)
    (half / "hosts/b.example").symlink_to("../id")
    (folder / "hosts/b.example").symlink_to("../environments/shop")
    (folder / "environments/shop/.new").symlink_to("nowhere")
    put(routes, 2)
    assert len(generations(folder)) == 1
    assert [path.name for path in (folder / "hosts").iterdir()] == ["a.example"]


def test_the_newest_generation_is_live_even_if_the_clock_was_set_back(folder: Path) -> None:
    routes = RoutesFolder(folder, keep=0.0)
    put(routes, 1)
    live = folder / "environments/shop/live"
    ahead = live.resolve().rename(folder / "environments/shop/g-8888888888888888888")
    live.unlink()
    live.symlink_to(ahead.name)
    put(routes, 2)
    assert live.readlink() == Path("g-8888888888888888889")
    assert routes.read("shop") == {"/": ["10.0.0.2:80"]}


def test_the_longest_hostname_fits(folder: Path) -> None:
    name = ".".join(["x" * 63] * 3 + ["y" * 61])
    RoutesFolder(folder).put("shop", [name], ROUTES)
    assert (folder / "hosts" / name / "live" / "hosts" / name).is_dir()


def test_a_hostname_that_a_dead_process_claimed_can_be_taken(folder: Path) -> None:
    routes = RoutesFolder(folder)
    put(routes, 1)
    (folder / "hosts/b.example").symlink_to("../environments/shop")
    routes.put("blog", ["b.example"], ROUTES)
    assert (folder / "hosts/b.example").readlink() == Path("../environments/blog")
    put(routes, 2)
    assert (folder / "hosts/b.example").readlink() == Path("../environments/blog")


def test_removing_leaves_nothing(folder: Path) -> None:
    routes = RoutesFolder(folder)
    put(routes, 1)
    routes.remove("shop")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "environments",
        "fences",
        "hosts",
        "lock",
    ]


@pytest.mark.usefixtures("tight_umask")
def test_another_account_can_read_whatever_the_umask(folder: Path) -> None:
    RoutesFolder(folder).put("shop", ["a.example"], {"/": ["10.0.0.1:80"], "/api/v1": ["10.0.0.2:80"]})
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink() and path.name != "lock":
            wanted = 0o005 if path.is_dir() else 0o004
            assert stat.S_IMODE(path.stat().st_mode) & 0o007 == wanted, path


def test_a_folder_that_cannot_be_written_is_the_platforms_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformBroke) as caught:
        put(RoutesFolder(tmp_path / "file" / "routes"), 1)
    assert caught.value.code == "routes_unwritable"


def test_nobody_waits_for_ever_for_the_lock(folder: Path) -> None:
    routes = RoutesFolder(folder, patience=0.2)
    put(routes, 1)
    with (folder / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimedOut) as caught:
            put(routes, 2)
    assert caught.value.code == "routes_unreachable"
    put(routes, 2)


@pytest.mark.parametrize("routes", [{"/": ["10.0.0.1:80"]}, {"/": ["10.0.0.1:80"], "/api": ["10.0.0.2:80"]}])
def test_whatever_somebody_removes_is_seen_and_put_back(folder: Path, routes: dict[str, list[str]]) -> None:
    made = RoutesFolder(folder)
    made.put("shop_develop", ["a.test", "b.test"], routes)
    assert made.whole("shop_develop", ["a.test", "b.test"], routes)
    live = folder / "environments" / "shop_develop" / "live"
    generation = live.resolve()
    entries = [path for path in generation.rglob("*") if not path.is_dir() or path.is_symlink()]
    for damaged in [*entries, live, folder / "hosts" / "b.test"]:
        fresh = live.resolve() / damaged.relative_to(generation) if damaged in entries else damaged
        if not fresh.is_symlink() and not fresh.exists():
            continue  # it carries the name of the generation that was replaced
        fresh.unlink()
        assert not made.whole("shop_develop", ["a.test", "b.test"], routes), damaged
        made.put("shop_develop", ["a.test", "b.test"], routes)
        assert made.whole("shop_develop", ["a.test", "b.test"], routes), damaged
