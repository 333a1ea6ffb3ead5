"""The promises of Source, kept by the fake and by git."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from branchline.adapters.git import GitSource
from branchline.domain.changes import MOST_COMMITS, CodeChanges, Commits, FileChange
from branchline.domain.errors import BadInput, BranchlineError, DeploymentFailed, PlatformBroke
from branchline.ports import Source
from tests.contract.git_host import GitRepository, server
from tests.fakes.log import FakeInterrupt, FakeLog
from tests.fakes.source import FakeRepository, FakeSource, Link, Module

GO_ON = FakeInterrupt()
Repository = FakeRepository | GitRepository


@dataclass
class World:
    """A source, with repositories that it can reach and some that it cannot."""

    source: Source
    host: Callable[[str], Repository]
    asks_password: str
    unreachable: str


@pytest.fixture(params=["fake", "git"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeSource()
        fake.host("https://host/secret.git", "refused")
        fake.host("https://host/away.git", "unreachable")
        yield World(
            fake, lambda name: fake.host(f"/srv/{name}.git"), "https://host/secret.git", "https://host/away.git"
        )
        return
    (tmp_path / "srv").mkdir()
    with server(401) as address, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        yield World(
            GitSource(tmp_path / "mirrors"),
            lambda name: GitRepository(tmp_path / "srv" / f"{name}.git"),
            f"{address}/secret.git",
            f"http://127.0.0.1:{taken.getsockname()[1]}/away.git",
        )


@pytest.fixture
def source(world: World) -> Source:
    return world.source


@pytest.fixture
def shop(world: World) -> Repository:
    return world.host("shop")


def refused(code: str, kind: type[BranchlineError], function: Callable[..., object], *words: object) -> BranchlineError:
    """The error that a call ends with, which has this code, a sentence and a hint."""
    with pytest.raises(kind) as caught:
        function(*words)
    assert caught.value.code == code
    assert caught.value.sentence.endswith(".")
    assert caught.value.hint
    return caught.value


# --- resolve


@pytest.mark.parametrize("ref", ["develop", "refs/heads/develop"])
def test_a_branch(source: Source, shop: Repository, ref: str) -> None:
    shop.commit("develop", subject="First")
    commit = shop.commit("develop", subject="Add a basket")
    revision = source.resolve("shop", shop.url, ref)
    assert (revision.ref, revision.commit, revision.subject) == ("refs/heads/develop", commit, "Add a basket")


@pytest.mark.parametrize("annotated", [False, True])
@pytest.mark.parametrize("ref", ["v1.0", "refs/tags/v1.0"])
def test_a_tag_is_peeled_to_its_commit(source: Source, shop: Repository, ref: str, annotated: bool) -> None:
    commit = shop.commit("main", subject="Release it")
    shop.commit("main")
    shop.tag("v1.0", commit, annotated=annotated)
    revision = source.resolve("shop", shop.url, ref)
    assert (revision.ref, revision.commit, revision.subject) == ("refs/tags/v1.0", commit, "Release it")


def test_a_branch_is_preferred_to_a_tag_of_its_name(source: Source, shop: Repository) -> None:
    old = shop.commit("both")
    new = shop.commit("both")
    shop.tag("both", old)
    assert source.resolve("shop", shop.url, "both").commit == new
    assert source.resolve("shop", shop.url, "refs/tags/both").commit == old


@pytest.mark.parametrize(
    "name",
    ["feature/basket", "a/b/c/d", "Grüße", "枝", "it's-$HOME", "émoji-🚀", "deadbee", "HEAD2", "é/" * 60 + "x" * 180],
    ids=lambda name: name[:20],
)
def test_unusual_names(source: Source, shop: Repository, name: str) -> None:
    commit = shop.commit(name)
    assert source.resolve("shop", shop.url, name).ref == f"refs/heads/{name}"
    assert source.resolve("shop", shop.url, f"refs/heads/{name}").commit == commit


@pytest.mark.parametrize(
    "name",
    ["", " ", "main ", "a b", "..", "../main", "main..main", "-", "--upload-pack=touch", "main~1", "main^", "main:file",
     "@", "main@{0}", "HEAD", "refs/heads/", "refs/tags/main", "refs/heads/*", "*", "main\n", "main\0", "/main",
     "main/", "main.lock", "refs/pull/1/head", "x" * 300, "ü" * 4000, "\ud800"],
    ids=lambda name: repr(name)[:20],
)  # fmt: skip
def test_names_that_are_no_ref(source: Source, shop: Repository, name: str) -> None:
    shop.commit("main")
    refused("unknown_ref", BadInput, source.resolve, "shop", shop.url, name)


def test_a_commit_is_no_ref(source: Source, shop: Repository) -> None:
    commit = shop.commit("main")
    refused("unknown_ref", BadInput, source.resolve, "shop", shop.url, commit)


def test_an_unknown_ref_tells_what_is_near(source: Source, shop: Repository) -> None:
    shop.tag("v1", shop.commit("develop"))
    error = refused("unknown_ref", BadInput, source.resolve, "shop", shop.url, "devlop")
    assert "'devlop'" in error.sentence
    assert "Did you mean develop?" in error.hint
    assert "v1" in error.hint


def test_an_empty_repository(source: Source, shop: Repository) -> None:
    error = refused("unknown_ref", BadInput, source.resolve, "shop", shop.url, "main")
    assert "empty" in error.hint
    commit = shop.commit("main")
    assert source.resolve("shop", shop.url, "main").commit == commit


def test_what_was_pushed_a_moment_ago(source: Source, shop: Repository) -> None:
    shop.commit("main")
    source.resolve("shop", shop.url, "main")
    commit = shop.commit("main")
    assert source.resolve("shop", shop.url, "main").commit == commit


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_an_older_commit_of_a_branch(source: Source, shop: Repository, digits: int) -> None:
    older = shop.commit("main", subject="Older")
    shop.commit("main")
    revision = source.resolve("shop", shop.url, "main", older[:digits])
    assert (revision.ref, revision.commit, revision.subject) == ("refs/heads/main", older, "Older")


def test_the_tip_by_its_beginning(source: Source, shop: Repository) -> None:
    tip = shop.commit("main")
    assert source.resolve("shop", shop.url, "main", tip[:7]).commit == tip


def test_a_commit_of_another_branch(source: Source, shop: Repository) -> None:
    shop.commit("main")
    other = shop.commit("other")
    for given in (other, other[:10]):
        error = refused("unknown_commit", BadInput, source.resolve, "shop", shop.url, "main", given)
        assert "branch main" in error.sentence


@pytest.mark.parametrize("commit", ["0" * 40, "1234567", "abc", "", "-" * 10, "HEAD~1", "main", "g" * 40])
def test_a_commit_that_is_not_there(source: Source, shop: Repository, commit: str) -> None:
    shop.commit("main")
    shop.commit("main")
    refused("unknown_commit", BadInput, source.resolve, "shop", shop.url, "main", commit)


def test_a_force_pushed_branch_has_lost_its_commit(source: Source, shop: Repository) -> None:
    kept = shop.commit("main")
    lost = shop.commit("main")
    assert source.resolve("shop", shop.url, "main", lost).commit == lost
    shop.point("main", kept)
    assert source.resolve("shop", shop.url, "main").commit == kept
    refused("unknown_commit", BadInput, source.resolve, "shop", shop.url, "main", lost)


def test_a_moved_tag(source: Source, shop: Repository) -> None:
    shop.tag("v1", shop.commit("main"))
    source.resolve("shop", shop.url, "v1")
    second = shop.commit("main")
    shop.tag("v1", second)
    assert source.resolve("shop", shop.url, "v1").commit == second


def test_a_deleted_branch(source: Source, shop: Repository) -> None:
    shop.commit("main")
    shop.commit("gone")
    source.resolve("shop", shop.url, "gone")
    shop.point("gone", None)
    refused("unknown_ref", BadInput, source.resolve, "shop", shop.url, "gone")


def test_a_branch_that_became_a_folder_of_branches(source: Source, shop: Repository) -> None:
    shop.commit("feature")
    source.resolve("shop", shop.url, "feature")
    shop.point("feature", None)
    commit = shop.commit("feature/one")
    assert source.resolve("shop", shop.url, "feature/one").commit == commit
    refused("unknown_ref", BadInput, source.resolve, "shop", shop.url, "feature")


def test_a_project_with_another_repository(world: World, shop: Repository) -> None:
    shop.commit("main")
    shop.commit("old")
    world.source.resolve("shop", shop.url, "main")
    other = world.host("other")
    commit = other.commit("main")
    assert world.source.resolve("shop", other.url, "main").commit == commit
    refused("unknown_ref", BadInput, world.source.resolve, "shop", other.url, "old")


def test_a_repository_that_asks_for_a_password(world: World) -> None:
    error = refused("repository_refused", BadInput, world.source.resolve, "shop", world.asks_password, "main")
    assert "git said: " in error.hint
    assert "terminal prompts disabled" in error.hint


def test_a_repository_that_nobody_serves(world: World) -> None:
    error = refused("repository_unreachable", BadInput, world.source.resolve, "shop", world.unreachable, "main")
    assert "git said: " in error.hint


def test_a_repository_that_does_not_exist(world: World, shop: Repository) -> None:
    nowhere = shop.url.replace("shop", "nowhere")
    refused("repository_unreachable", BadInput, world.source.resolve, "shop", nowhere, "main")
    shop.commit("main")
    assert world.source.resolve("shop", shop.url, "main")


# --- read


def test_a_file_of_a_commit(source: Source, shop: Repository) -> None:
    first = shop.commit("main", {"branchline.yaml": "project: shop\n", "ops/mask.sql": "select 'ü';\n"})
    second = shop.commit("main", {"branchline.yaml": "project: shop2\n"})
    source.resolve("shop", shop.url, "main")
    assert source.read("shop", first, "branchline.yaml") == "project: shop\n"
    assert source.read("shop", second, "branchline.yaml") == "project: shop2\n"
    assert source.read("shop", first, "ops/mask.sql") == "select 'ü';\n"
    assert source.read("shop", second, "ops/mask.sql") is None


@pytest.mark.parametrize(
    "path", ["", "ops", "../file", "/etc/passwd", "fi", "file/more", "-file", "file\n", "x" * 300, "\ud800"]
)
def test_a_file_that_is_not_there(source: Source, shop: Repository, path: str) -> None:
    commit = shop.commit("main", {"file": "text", "ops/mask.sql": ""})
    source.resolve("shop", shop.url, "main")
    assert source.read("shop", commit, path) is None


def test_a_file_behind_a_link(source: Source, shop: Repository) -> None:
    files = {"branchline.yaml": Link("ops/real.yaml"), "ops/real.yaml": "text", "out": Link("/etc/passwd")}
    commit = shop.commit("main", files)
    source.resolve("shop", shop.url, "main")
    assert source.read("shop", commit, "branchline.yaml") == "text"
    assert source.read("shop", commit, "out") is None


@pytest.mark.parametrize(
    "content", [b"caf\xe9", b"\xff\xfe\x00", b"x" * 1024 * 1024 + b"x"], ids=["latin", "16", "big"]
)
def test_a_file_that_cannot_be_read(source: Source, shop: Repository, content: bytes) -> None:
    commit = shop.commit("main", {"branchline.yaml": content})
    source.resolve("shop", shop.url, "main")
    error = refused("unreadable_file", BadInput, source.read, "shop", commit, "branchline.yaml")
    assert "branchline.yaml" in error.sentence


def test_a_byte_order_mark_is_left_out(source: Source, shop: Repository) -> None:
    commit = shop.commit("main", {"file": b"\xef\xbb\xbftext", "empty": ""})
    source.resolve("shop", shop.url, "main")
    assert source.read("shop", commit, "file") == "text"
    assert source.read("shop", commit, "empty") == ""


def test_reading_from_an_unknown_commit(source: Source, shop: Repository) -> None:
    refused("unknown_commit", BadInput, source.read, "shop", "0" * 40, "file")
    shop.commit("main")
    source.resolve("shop", shop.url, "main")
    refused("unknown_commit", BadInput, source.read, "shop", "0" * 40, "file")
    refused("unknown_commit", BadInput, source.read, "shop", "main", "file")


# --- checkout


def files_of(folder: Path) -> dict[str, str]:
    """What a checkout holds, links by their target."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_exactly_a_commit_and_nothing_else(source: Source, shop: Repository, tmp_path: Path) -> None:
    files = {"a": "1", "b/c": "2\r\n", "link": Link("b/c"), "out": Link("/etc"), ".gitignore": "a\n",
             ".gitattributes": "b/* export-ignore\n* text=auto\n"}  # fmt: skip
    commit = shop.commit("main", {**files, "b/c": b"2\n"})
    shop.commit("main", {"later": ""})
    folder = tmp_path / "work" / "7"
    (folder / "old" / "deep").mkdir(parents=True)
    (folder / "old" / "deep" / "file").write_text("old")
    (folder / "broken").symlink_to("/nowhere")
    source.resolve("shop", shop.url, "main")
    for _ in range(2):
        source.checkout("shop", shop.url, commit, folder, FakeLog(), GO_ON)
        found = files_of(folder)
        assert found == {"a": "1", "b/c": "2\n", "link": "b/c", "out": "/etc", ".gitignore": "a\n",
                         ".gitattributes": files[".gitattributes"]}  # fmt: skip
        (folder / "a").write_text("changed")
    assert sorted(path.name for path in folder.iterdir()) == [".gitattributes", ".gitignore", "a", "b", "link", "out"]


def test_a_link_in_the_folder_is_not_followed(source: Source, shop: Repository, tmp_path: Path) -> None:
    commit = shop.commit("main", {"b/c": "2"})
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep me")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "b").symlink_to(tmp_path / "precious")
    source.resolve("shop", shop.url, "main")
    source.checkout("shop", shop.url, commit, folder, FakeLog(), GO_ON)
    assert files_of(folder) == {"b/c": "2"}
    assert files_of(tmp_path / "precious") == {"file": "keep me"}


def test_a_checkout_without_resolving_first(source: Source, shop: Repository, tmp_path: Path) -> None:
    commit = shop.commit("main", {"a": "1"})
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert files_of(tmp_path / "work") == {"a": "1"}


def test_an_empty_commit(source: Source, shop: Repository, tmp_path: Path) -> None:
    commit = shop.commit("main", {})
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert files_of(tmp_path / "work") == {}


def test_a_commit_that_nobody_has(source: Source, shop: Repository, tmp_path: Path) -> None:
    shop.commit("main")
    call = (source.checkout, "shop", shop.url, "0" * 40, tmp_path / "work", FakeLog(), GO_ON)
    refused("unknown_commit", DeploymentFailed, *call)


def test_a_checkout_from_a_repository_that_nobody_serves(world: World, tmp_path: Path) -> None:
    call = (world.source.checkout, "shop", world.unreachable, "0" * 40, tmp_path / "work", FakeLog(), GO_ON)
    refused("repository_unreachable", PlatformBroke, *call)


def test_submodules_of_submodules(world: World, tmp_path: Path) -> None:
    inner, library, shop = world.host("inner"), world.host("library"), world.host("shop")
    core = inner.commit("main", {"core": "1"})
    inner.commit("main", {"core": "2"})
    lib = library.commit("main", {"lib": "1", "deep/inner": Module("../inner.git", core)})
    commit = shop.commit(
        "main", {"a": "1", "vendor/library": Module(library.url, lib), "x": Module("../inner.git", core)}
    )
    log = FakeLog()
    world.source.checkout("shop", shop.url, commit, tmp_path / "work", log, GO_ON)
    found = files_of(tmp_path / "work")
    assert {path: text for path, text in found.items() if not path.endswith(".gitmodules")} == {
        "a": "1",
        "vendor/library/lib": "1",
        "vendor/library/deep/inner/core": "1",
        "x/core": "1",
    }
    assert f"Submodule vendor/library at {lib[:12]}" in log.lines
    assert not list((tmp_path / "work").rglob(".git"))


@pytest.mark.parametrize("url", ["../nowhere.git", "https://host.invalid/x.git", "/etc", "../shop.git"])
def test_a_submodule_that_cannot_be_had(source: Source, shop: Repository, tmp_path: Path, url: str) -> None:
    commit = shop.commit("main", {"vendor": Module(url, "1" * 40)})
    call = (source.checkout, "shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert "vendor" in refused("submodule_failed", DeploymentFailed, *call).sentence


def test_a_submodule_elsewhere_on_this_machine_stays_closed(world: World, tmp_path: Path) -> None:
    shop, secret = world.host("shop"), world.host("deep/secret")
    hidden = secret.commit("main", {"secret": "1"})
    outside = world.host("../outside")
    commit_outside = outside.commit("main", {"secret": "1"})
    commit = shop.commit("main", {"vendor": Module(outside.url, commit_outside)})
    call = (world.source.checkout, "shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    refused("submodule_failed", DeploymentFailed, *call)
    allowed = shop.commit("main", {"vendor": Module(secret.url, hidden)})
    world.source.checkout("shop", shop.url, allowed, tmp_path / "work", FakeLog(), GO_ON)
    assert (tmp_path / "work" / "vendor" / "secret").read_text() == "1"


# --- compare

PYTHON = (".py", ".sql")


def compared(source: Source, shop: Repository, before: str, after: str) -> CodeChanges:
    source.resolve("shop", shop.url, "main")
    return source.compare("shop", before, after, PYTHON)


def test_what_came_with_a_commit(source: Source, shop: Repository) -> None:
    first = shop.commit("main", {"a.py": "1", "gone.sql": "1", "same.py": "1", "a.txt": "1"})
    shop.commit("main", {"a.py": "2", "gone.sql": "1", "same.py": "1"}, subject="Add a basket\n\nAnd more.")
    last = shop.commit("main", {"a.py": "3", "ü/new file.py": "1", "same.py": "1", "b.txt": "1"}, subject="Add a till")
    found = compared(source, shop, first, last)
    assert (found.came.total, found.went) == (2, Commits())
    newest = found.came.newest[0]
    assert (newest.sha, newest.subject, newest.author) == (last, "Add a till", "A B")
    assert found.came.newest[1].subject.startswith("Add a basket")
    assert all(datetime.fromisoformat(one.at).tzinfo for one in found.came.newest)
    assert found.files == {
        "a.py": FileChange.CHANGED,
        "gone.sql": FileChange.REMOVED,
        "ü/new file.py": FileChange.ADDED,
    }


def test_what_went_on_the_way_back(source: Source, shop: Repository) -> None:
    first = shop.commit("main", {"a.py": "1"})
    second = shop.commit("main", {"a.py": "1", "b.py": "1"}, subject="A mistake")
    found = compared(source, shop, second, first)
    assert (found.came, found.went.total, found.went.newest[0].subject) == (Commits(), 1, "A mistake")
    assert found.files == {"b.py": FileChange.REMOVED}


def test_what_came_and_went_on_the_way_sideways(source: Source, shop: Repository) -> None:
    base = shop.commit("main", {"a.py": "1"})
    old = shop.commit("main", {"a.py": "2"}, subject="The old way")
    source.resolve("shop", shop.url, "main")
    shop.point("main", base)
    new = shop.commit("main", {"a.py": "3"}, subject="The new way")
    found = compared(source, shop, old, new)
    assert [one.sha for one in found.came.newest] == [new]
    assert [one.sha for one in found.went.newest] == [old]
    assert found.files == {"a.py": FileChange.CHANGED}


def test_histories_without_a_common_beginning(source: Source, shop: Repository) -> None:
    one = shop.commit("main", {"a.py": "1"})
    other = shop.commit("other", {"b.py": "1"})
    found = compared(source, shop, one, other)
    assert (found.came.total, found.went.total) == (1, 1)
    assert found.files == {"a.py": FileChange.REMOVED, "b.py": FileChange.ADDED}


def test_only_the_newest_of_many_commits_are_named_but_all_are_counted(source: Source, shop: Repository) -> None:
    base = shop.commit("main", {"a.py": "1"})
    old = shop.commit("main", {"a.py": "0"}, subject="Alone")
    source.resolve("shop", shop.url, "main")
    shop.point("main", base)
    names = [shop.commit("main", {"a.py": str(number)}) for number in range(2 * MOST_COMMITS + 3)]
    found = compared(source, shop, old, names[-1])
    assert found.came.total == 2 * MOST_COMMITS + 3
    assert [one.sha for one in found.came.newest] == names[: -MOST_COMMITS - 1 : -1]
    assert (found.went.total, [one.subject for one in found.went.newest]) == (1, ["Alone"])


def test_the_same_commit_differs_in_nothing(source: Source, shop: Repository) -> None:
    commit = shop.commit("main", {"a.py": "1"})
    assert compared(source, shop, commit, commit) == CodeChanges(Commits(), Commits(), {})


@pytest.mark.parametrize("strange", ["0" * 40, "--output=/tmp/x", "HEAD"])
def test_a_commit_that_is_not_here_cannot_be_compared(source: Source, shop: Repository, strange: str) -> None:
    commit = shop.commit("main")
    refused("unknown_commit", PlatformBroke, compared, source, shop, strange, commit)
    refused("unknown_commit", PlatformBroke, compared, source, shop, commit, strange)
    refused("unknown_commit", PlatformBroke, source.compare, "till", commit, commit, PYTHON)
