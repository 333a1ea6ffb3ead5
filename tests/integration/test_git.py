"""GitSource where a fake has nothing to say: speed, other people's settings, kill -9, and servers that misbehave."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from branchline.adapters.git import GitSource
from branchline.adapters.git_command import Git
from branchline.adapters.git_mirror import Mirror
from branchline.adapters.git_modules import absolute
from branchline.domain.changes import FileChange
from branchline.domain.errors import BadInput, Cancelled, DeploymentFailed, PlatformBroke
from tests.contract.git_host import GitRepository, server, serving
from tests.contract.test_source import files_of
from tests.fakes.log import FakeInterrupt, FakeLog
from tests.fakes.source import Link, Module
from tests.full import small_disk

GO_ON = FakeInterrupt()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "shop.git")


@pytest.fixture
def source(tmp_path: Path) -> GitSource:
    return GitSource(tmp_path / "mirrors")


def fastest(function: Callable[[], object], times: int = 7) -> float:
    """Seconds of the quickest of some calls: the machine is shared."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        took.append(time.perf_counter() - began)
    return min(took)


def test_it_is_quick(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    commit = shop.commit("main", {f"folder{n % 5}/file{n}": f"{n}\n" * 100 for n in range(60)})
    source.resolve("shop", shop.url, "main")
    assert fastest(lambda: source.resolve("shop", shop.url, "main")) < 0.1
    assert fastest(lambda: source.read("shop", commit, "folder0/file0")) < 0.05
    later = shop.commit("main", {"migrations/0001_x.py": "1"})
    source.resolve("shop", shop.url, "main")
    assert fastest(lambda: source.compare("shop", commit, later, (".py",))) < 0.06
    work = tmp_path / "work"
    assert fastest(lambda: source.checkout("shop", shop.url, commit, work, FakeLog(), GO_ON)) < 0.06


def test_a_repository_and_a_mirror_of_another_user(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    commit = shop.commit("main", {"a": "1"})
    source.resolve("shop", shop.url, "main")
    for folder in (shop.path, tmp_path / "mirrors" / "shop.git"):
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
    assert source.resolve("shop", shop.url, "main").commit == commit
    source.checkout("shop", f"file://{shop.url}", commit, tmp_path / "work", FakeLog(), GO_ON)


USERS_SETTINGS = """
[core]
    autocrlf = true
    hooksPath = /nowhere
    attributesFile = {home}/attributes
[url "{home}/real/"]
    insteadOf = https://code.example/
[fetch]
    prune = false
[submodule]
    recurse = true
[log]
    showSignature = true
    decorate = full
    follow = true
[i18n]
    logOutputEncoding = latin1
[diff]
    renames = copies
    external = /nowhere
    orderFile = /nowhere
    noprefix = true
[color]
    ui = always
[init]
    templateDir = /nowhere
[credential]
    helper = "!echo username=me; echo password=word; :"
"""


@pytest.fixture
def users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with settings of all kinds."""
    home = tmp_path / 'home "q" \\ ü'
    (home / "real").mkdir(parents=True)
    (home / ".gitconfig").write_text(USERS_SETTINGS.format(home=str(home).replace("\\", "\\\\").replace('"', '\\"')))
    (home / "attributes").write_text("* text eol=crlf\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as a hook of git would have it
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    return home


def test_users_settings_work_but_change_no_checkout(users_home: Path, tmp_path: Path) -> None:
    shop = GitRepository(users_home / "real" / "shop.git", "https://code.example/shop.git")
    commit = shop.commit("main", {"a": "1\n2\n", "gone": ""})
    source = GitSource(tmp_path / "mirrors")
    assert source.resolve("shop", shop.url, "main").commit == commit  # by the user's insteadOf
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert (tmp_path / "work" / "a").read_bytes() == b"1\n2\n"


def test_users_settings_change_no_comparison(users_home: Path, tmp_path: Path) -> None:
    shop = GitRepository(users_home / "real" / "shop.git", "https://code.example/shop.git")
    before = shop.commit("main", {"a.py": "1\n" * 50, "b.py": "1"})
    after = shop.commit("main", {"c.py": "1\n" * 50, "b.py": "2"}, subject="Für die Kasse")
    source = GitSource(tmp_path / "mirrors")
    source.resolve("shop", shop.url, "main")
    found = source.compare("shop", before, after, (".py",))
    assert [(one.sha, one.subject) for one in found.came.newest] == [(after, "Für die Kasse")]
    assert found.files == {"a.py": FileChange.REMOVED, "b.py": FileChange.CHANGED, "c.py": FileChange.ADDED}


def test_what_commits_say_of_themselves_is_fit_to_be_shown(source: GitSource, shop: GitRepository) -> None:
    before = shop.commit("main")
    message = b"\x1b[31mred\x1b[0m \xff \xe2\x80\xae" + b"x" * 500 + b"\n\nbody"
    strange = b"commit refs/heads/main\nauthor \xffA\x1f\tB <a@example.com> 1700000000 +0530\n"
    strange += b"committer A <a@example.com> 1700000100 +0530\nencoding latin1\ndata %d\n%s\n" % (len(message), message)
    shop.git("fast-import", "--quiet", stdin=strange + f"from {before}\n".encode())
    source.resolve("shop", shop.url, "main")
    (one,) = source.compare("shop", before, shop.git("rev-parse", "main"), ()).came.newest
    assert (one.author, one.at) == ("ÿA  B", "2023-11-15T03:45:00+05:30")
    assert one.subject.isprintable()
    assert one.subject.startswith(" [31mred [0m ÿ".strip())
    assert len(one.subject) == 200


def test_commits_that_only_a_lender_has_are_compared_there(tmp_path: Path, shop: GitRepository) -> None:
    before, after = shop.commit("main"), shop.commit("main", {"a.py": "1"})
    GitSource(tmp_path / "lender").resolve("shop", shop.url, "main")
    assert GitSource(tmp_path / "own", lender=tmp_path / "lender").compare("shop", before, after, ()).came.total == 1
    GitSource(tmp_path / "own").resolve("shop", shop.url, "main")
    shutil.rmtree(tmp_path / "lender")
    assert GitSource(tmp_path / "own", lender=tmp_path / "lender").compare("shop", before, after, ()).came.total == 1


def test_a_damaged_mirror_compares_nothing_and_says_so(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    before, after = shop.commit("main", {"a.py": "1"}), shop.commit("main", {"a.py": "2"})
    source.resolve("shop", shop.url, "main")
    tree = shop.git("rev-parse", f"{before}^{{tree}}")
    (tmp_path / "mirrors" / "shop.git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(PlatformBroke) as caught:
        source.compare("shop", before, after, (".py",))
    assert caught.value.code == "comparison_failed"
    assert "git could not compare the two commits:" in caught.value.sentence


def test_users_credential_helper_is_asked(users_home: Path, tmp_path: Path) -> None:
    with server(401) as address, pytest.raises(BadInput) as caught:
        GitSource(tmp_path / "mirrors").resolve("shop", f"{address}/shop.git", "main")
    assert caught.value.code == "repository_refused"
    assert "Authentication failed" in caught.value.hint  # it had a password to try


def test_without_a_home(tmp_path: Path, shop: GitRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    commit = shop.commit("main")
    assert GitSource(tmp_path / "mirrors").resolve("shop", shop.url, "main").commit == commit


@pytest.mark.parametrize("way", ["environment", "settings", "program"])
def test_users_ssh_is_used_and_never_asks(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "my ssh"
    program.write_text(
        f'#!/bin/sh\necho "$@" > "{tmp_path}/words"\necho "git@host: Permission denied (publickey)." >&2\nexit 255\n'
    )
    program.chmod(0o755)
    for name in ("GIT_SSH_COMMAND", "GIT_SSH", "GIT_CONFIG_GLOBAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    if way == "environment":
        monkeypatch.setenv("GIT_SSH_COMMAND", f"'{program}' -i key")
    elif way == "program":
        monkeypatch.setenv("GIT_SSH", str(program))
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".gitconfig").write_text(f"[core]\n\tsshCommand = '{program}' -i key\n")
    with pytest.raises(BadInput) as caught:
        GitSource(tmp_path / "mirrors").resolve("shop", "git@code.example:shop.git", "main")
    assert caught.value.code == "repository_refused"
    words = (tmp_path / "words").read_text()
    assert "BatchMode=yes" in words
    assert ("-i key" in words) == (way != "program")


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "repository_refused"), (404, "repository_unreachable"), (500, "repository_unreachable")],
)
def test_what_web_servers_say(source: GitSource, status: int, code: str) -> None:
    with server(status) as address, pytest.raises(BadInput) as caught:
        source.resolve("shop", f"{address}/shop.git", "main")
    assert caught.value.code == code


def test_a_token_in_an_address_is_never_shown(source: GitSource) -> None:
    with server(401) as address, pytest.raises(BadInput) as caught:
        source.resolve("shop", address.replace("://", "://ghp_token@") + "/shop.git", "main")
    assert "ghp_token" not in caught.value.sentence + caught.value.hint


@pytest.mark.parametrize("address", ["ext::sh -c touch% /tmp/x", "git://127.0.0.1/x", "fd::7", "--upload-pack=x"])
def test_other_protocols_are_closed(source: GitSource, address: str) -> None:
    with pytest.raises((BadInput, PlatformBroke)) as caught:
        source.resolve("shop", address, "main")
    assert caught.value.code == "repository_unreachable"


def test_what_a_lender_has_is_not_fetched(tmp_path: Path) -> None:
    shop = GitRepository(tmp_path / "shop.git")
    commit = shop.commit("main", {"file": b"1"})
    GitSource(tmp_path / "lender").resolve("shop", shop.url, "main")
    source, log = GitSource(tmp_path / "mirrors", lender=tmp_path / "lender"), FakeLog()
    source.checkout("shop", (tmp_path / "nowhere.git").as_uri(), commit, tmp_path / "work", log, GO_ON)
    assert (tmp_path / "work" / "file").read_bytes() == b"1"
    assert log.lines == []


def test_what_a_lender_says_is_not_heeded(tmp_path: Path) -> None:
    """A lender may have been taken, and the settings of a repository name programs, which we would run as ourselves."""
    shop = GitRepository(tmp_path / "shop.git")
    commit = shop.commit("main", {"file": b"1", ".gitattributes": b"* filter=trap\n"})
    GitSource(tmp_path / "lender").resolve("shop", shop.url, "main")
    lent, trap = Git(tmp_path / "lender"), f"touch {tmp_path}/sprung; cat"
    for setting in ("filter.trap.smudge", "core.sshCommand", "core.alternateRefsCommand", "remote.origin.uploadpack"):
        lent.ask(f"--git-dir={tmp_path}/lender/shop.git", "config", setting, trap, timeout=10)
    work = tmp_path / "work"
    GitSource(tmp_path / "mirrors", lender=tmp_path / "lender").checkout(
        "shop", shop.url, commit, work, FakeLog(), GO_ON
    )
    assert (work / "file").read_bytes() == b"1"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("closed", [".", "shop.git", "shop.git/objects"])
def test_what_only_others_may_read_says_so(closed: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bl-git-"))
    try:
        folder.chmod(0o755)
        shop = GitRepository(folder / "shop.git")
        shop.commit("main", {"file": b"1"})
        (folder / closed).chmod(0o700)
        said = as_nobody(shop.url)
        assert said["code"] == "repository_unreadable"
        assert str(folder / "shop.git") in said["sentence"]
        assert "setfacl" in said["hint"]
    finally:
        shutil.rmtree(folder)


def as_nobody(url: str) -> dict[str, str]:
    """What somebody without rights is told who resolves a ref."""
    code = """if True:
        import json, os, sys, tempfile
        from pathlib import Path
        from branchline.adapters.git import GitSource
        from branchline.domain.errors import BranchlineError
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            GitSource(Path(tempfile.mkdtemp())).resolve("shop", sys.argv[1], "main")
        except BranchlineError as error:
            print(json.dumps({"code": error.code, "sentence": error.sentence, "hint": error.hint}))
    """
    environment = {**os.environ, "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("lack", ["mirror", "commit", "file"])
def test_what_a_lender_lacks_is_fetched(tmp_path: Path, lack: str) -> None:
    shop = GitRepository(tmp_path / "shop.git")
    commit = shop.commit("main", {"file": b"1"})
    if lack != "mirror":
        GitSource(tmp_path / "lender").resolve("shop", shop.url, "main")
    if lack == "commit":
        commit = shop.commit("main", {"file": b"1", "other": b"2"})
    if lack == "file":
        blob = shop.git("rev-parse", f"{commit}:file").strip()
        (tmp_path / "lender" / "shop.git" / "objects" / blob[:2] / blob[2:]).unlink()
    lent = sorted((tmp_path / "lender").rglob("*"))
    source = GitSource(tmp_path / "mirrors", lender=tmp_path / "lender")
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert (tmp_path / "work" / "file").read_bytes() == b"1"
    assert sorted((tmp_path / "lender").rglob("*")) == lent, "it is only read"


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    mirror = Mirror(Git(tmp_path / "mirrors"), tmp_path / "mirrors" / "shop.git")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(BadInput, match=r"did not answer within 0\.5 seconds") as caught:
            mirror.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git", limit=0.5)
        assert caught.value.code == "repository_unreachable"
        assert time.monotonic() - began < 2


def test_a_checkout_can_be_cancelled(source: GitSource, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        began = time.monotonic()
        with pytest.raises(Cancelled):
            source.checkout("shop", url, "0" * 40, tmp_path / "work", FakeLog(), FakeInterrupt(after=0.3))
        assert time.monotonic() - began < 1.3


def test_a_slow_server_is_waited_for_and_a_stage_that_lasts_too_long_ends_it(tmp_path: Path) -> None:
    shop = GitRepository(tmp_path / "shop.git")
    commit = shop.commit("main", {"noise": os.urandom(150_000)})
    shop.git("repack", "-adq")
    shop.git("update-server-info")
    with serving(shop.path, bytes_a_second=100_000) as url:
        late, log = GitSource(tmp_path / "late"), FakeLog()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            late.checkout("shop", url, commit, tmp_path / "work", log, FakeInterrupt(after=0.5))
        assert time.monotonic() - began < 1.5
        assert log.last == f"Fetching {url}"
        GitSource(tmp_path / "patient").checkout("shop", url, commit, tmp_path / "work", log, GO_ON)
        assert time.monotonic() - began > 1.5
    assert (tmp_path / "work" / "noise").stat().st_size == 150_000


def test_a_disk_without_room_says_so_and_is_tried_again(tmp_path: Path) -> None:
    shop = GitRepository(tmp_path / "shop.git")
    commit = shop.commit("main", {f"noise{number}": os.urandom(100_000) for number in range(10)})
    with small_disk(tmp_path / "mirrors", "4M") as mirrors, small_disk(tmp_path / "work", "4M") as works:
        source = GitSource(mirrors.folder)

        def full(work: Callable[[], object]) -> PlatformBroke:
            with pytest.raises(PlatformBroke) as caught:
                work()
            assert caught.value.code == "no_space"
            assert caught.value.hint
            return caught.value

        def check_out() -> None:
            source.checkout("shop", shop.url, commit, works.folder / "1", FakeLog(), GO_ON)

        for room in (0, 300_000):  # for nothing at all, and for what is small
            mirrors.fill(leave=room)
            assert str(mirrors.folder) in full(lambda: source.resolve("shop", shop.url, "main")).hint
            mirrors.empty()
        assert source.resolve("shop", shop.url, "main").commit == commit
        works.fill(leave=500_000)
        assert str(works.folder) in full(check_out).hint
        works.empty()
        check_out()
        assert len(list((works.folder / "1").glob("noise*"))) == 10


def test_many_at_once(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    commits = [shop.commit("main", {"file": f"{n}"}) for n in range(8)]

    def work(n: int) -> str:
        other = GitSource(tmp_path / "mirrors")
        assert other.resolve("shop", shop.url, "main", commits[n]).commit == commits[n]
        other.checkout("shop", shop.url, commits[n], tmp_path / f"work{n}", FakeLog(), GO_ON)
        return (tmp_path / f"work{n}" / "file").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [str(n) for n in range(8)]


def test_a_killed_reader_leaves_nothing_that_hurts(shop: GitRepository, tmp_path: Path) -> None:
    """Kill a process again and again while it fetches and checks out; whoever comes next finds things in order."""
    script = """
import sys
from pathlib import Path
from branchline.adapters.git import GitSource
from tests.fakes.log import FakeInterrupt, FakeLog
mirrors, url, work = sys.argv[1:]
source = GitSource(Path(mirrors))
print("ready", flush=True)
while True:
    commit = source.resolve("shop", url, "main").commit
    source.checkout("shop", url, commit, Path(work), FakeLog(), FakeInterrupt())
"""
    source = GitSource(tmp_path / "mirrors")
    for n in range(12):
        for m in range(3):
            shop.commit(f"branch{n}-{m}")
        commit = shop.commit("main", {f"file{m}": f"{n}" * 1000 for m in range(40)})
        words = [sys.executable, "-c", script, str(tmp_path / "mirrors"), shop.url, str(tmp_path / "work")]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            time.sleep(0.004 * n)
            reader.kill()
        assert source.resolve("shop", shop.url, "main").commit == commit
        source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
        assert files_of(tmp_path / "work") == {f"file{m}": f"{n}" * 1000 for m in range(40)}


@pytest.mark.parametrize("known", [True, False], ids=["killed", "power-cut"])
def test_stale_locks_are_swept(source: GitSource, shop: GitRepository, tmp_path: Path, known: bool) -> None:
    shop.commit("main")
    source.resolve("shop", shop.url, "main")
    mirror = tmp_path / "mirrors" / "shop.git"
    (mirror / "refs" / "heads" / "main.lock").touch()
    (mirror / "packed-refs.lock").touch()
    (mirror / "objects" / "pack" / "tmp_pack_x").write_text("half")
    if known:
        (tmp_path / "mirrors" / "shop.lock").write_text("fetching\n")
    commit = shop.commit("main")
    assert source.resolve("shop", shop.url, "main").commit == commit
    assert not list(mirror.rglob("*.lock"))
    assert not list(mirror.rglob("tmp_pack*"))


def test_locks_of_a_living_git_are_left_alone(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    shop.commit("main")
    source.resolve("shop", shop.url, "main")
    mirror = tmp_path / "mirrors" / "shop.git"
    (mirror / "packed-refs.lock").touch()
    (tmp_path / "mirrors" / "shop.lock").write_text("fetching\n")
    with (tmp_path / "mirrors" / "shop.gc").open("w") as tidying:
        fcntl.flock(tidying, fcntl.LOCK_EX)
        source.resolve("shop", shop.url, "main")
        assert (mirror / "packed-refs.lock").exists()


def test_whoever_waits_too_long_is_told(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    shop.commit("main")
    mirror = Mirror(Git(tmp_path / "mirrors"), tmp_path / "mirrors" / "shop.git")
    with (tmp_path / "mirrors" / "shop.lock").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        with pytest.raises(PlatformBroke) as caught:
            mirror.fetch(shop.url, limit=0.2)
    assert caught.value.code == "repository_busy"


@pytest.mark.parametrize("harm", ["objects", "empty", "head", "all"])
def test_a_damaged_mirror_is_made_anew(source: GitSource, shop: GitRepository, tmp_path: Path, harm: str) -> None:
    for _ in range(3):
        shop.commit("main")
    source.resolve("shop", shop.url, "main")
    mirror = tmp_path / "mirrors" / "shop.git"
    objects = [path for path in (mirror / "objects").rglob("*") if path.is_file()]
    if harm == "objects":
        for path in objects:
            path.unlink()
    elif harm == "empty":
        for path in objects:
            path.chmod(0o600)
            path.write_bytes(b"")
    elif harm == "head":
        (mirror / "HEAD").unlink()
    else:
        shutil.rmtree(mirror)
        mirror.mkdir()
    commit = shop.commit("main", {"a": "1"})
    assert source.resolve("shop", shop.url, "main").commit == commit
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert files_of(tmp_path / "work") == {"a": "1"}


def test_a_mirror_is_tidied_now_and_then(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    packs = tmp_path / "mirrors" / "shop.git" / "objects" / "pack"
    source.resolve("shop", shop.url, shop.commit("main") and "main")
    for n in range(60):
        loose = GitRepository(tmp_path / f"r{n}.git")
        loose.commit("main", {"file": f"{n}"})
        loose.git("repack", "-adq")
        for file in (loose.path / "objects" / "pack").glob("pack-*"):
            shutil.copy(file, packs)
    assert len(list(packs.glob("*.pack"))) > 50
    source.resolve("shop", shop.url, "main")
    end = time.monotonic() + 30
    while len(list(packs.glob("*.pack"))) > 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(list(packs.glob("*.pack"))) <= 5
    source.resolve("shop", shop.url, "main")
    for thread in threading.enumerate():
        if thread.name.startswith("tidy"):
            thread.join(30)


def test_a_commit_that_only_its_name_reaches(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    kept = shop.commit("main", {"a": "1"})
    lost = shop.commit("main", {"a": "2"})
    shop.point("main", kept)
    shop.git("config", "uploadpack.allowAnySHA1InWant", "true")
    source.checkout("shop", shop.url, lost, tmp_path / "work", FakeLog(), GO_ON)
    assert files_of(tmp_path / "work") == {"a": "2"}


def test_files_are_the_same_under_any_umask(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    commit = shop.commit("main", {"folder/a": "1"})
    before = os.umask(0o077)
    try:
        source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    finally:
        os.umask(before)
    assert (tmp_path / "work" / "folder" / "a").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "work" / "folder").stat().st_mode & 0o777 == 0o755


def test_a_checkout_waits_for_who_still_writes(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    commit = shop.commit("main", {"a": "1"})
    folder = tmp_path / "work"
    folder.mkdir()
    # A child that outlived its runner holds the folder's lock: it was handed on to it.
    orphan = subprocess.Popen(["flock", str(folder), "sleep", "0.5"], start_new_session=True)
    time.sleep(0.2)
    (folder / "written").touch()
    try:
        source.checkout("shop", shop.url, commit, folder, FakeLog(), GO_ON)
        assert orphan.poll() is not None or orphan.wait(1) == 0
    finally:
        if orphan.poll() is None:
            os.killpg(orphan.pid, signal.SIGKILL)
            orphan.wait()
    assert files_of(folder) == {"a": "1"}


def test_submodules_of_a_remote_project_cannot_open_this_machine(source: GitSource, tmp_path: Path) -> None:
    secret = GitRepository(tmp_path / "secret.git")
    hidden = secret.commit("main")
    front = GitRepository(tmp_path / "www" / "shop.git")
    for url in (
        str(secret.path),
        f"file://{secret.path}",
        f"FILE://{secret.path}",
        f"file://{tmp_path}/www/%2e%2e/secret.git",
    ):
        commit = front.commit("main", {"vendor": Module(url, hidden)})
        front.git("update-server-info")
        front.git("repack", "-adq")
        with serving(tmp_path / "www") as address, pytest.raises(DeploymentFailed) as caught:
            source.checkout("shop", f"{address}/shop.git", commit, tmp_path / "work", FakeLog(), GO_ON)
        assert caught.value.code == "submodule_failed"
        with pytest.raises(DeploymentFailed):  # nor beside it, when the project lies in www itself
            source.checkout("local", str(front.path), commit, tmp_path / "work", FakeLog(), GO_ON)
    assert not list((tmp_path / "work" / "vendor").glob("*"))


def test_a_submodule_cannot_leave_through_a_link(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    lib = GitRepository(tmp_path / "lib.git")
    inner = lib.commit("main", {"evil": "1"})
    (tmp_path / "outside").mkdir()
    files = {
        "vendor": Link(str(tmp_path / "outside")),
        ".gitmodules": '[submodule "v"]\npath = vendor/x\nurl = ../lib.git\n',
    }
    commit = shop.commit("main", files)
    tree = shop.git("ls-tree", commit) + f"\n160000 commit {inner}\tvendor/x"
    with pytest.raises(AssertionError):  # git itself makes no such tree
        shop.git("mktree", "--missing", stdin=tree.encode())
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert files_of(tmp_path / "outside") == {}


@pytest.mark.parametrize(
    ("url", "base", "expected"),
    [
        ("../b.git", "https://host/team/a.git", "https://host/team/b.git"),
        ("../b.git", "https://host/team/a.git/", "https://host/team/b.git"),
        ("./b.git", "https://host/team/a.git", "https://host/team/a.git/b.git"),
        ("../../x/b.git", "https://host/team/a.git", "https://host/x/b.git"),
        ("../b.git", "git@host:team/a.git", "git@host:team/b.git"),
        ("../b.git", "git@host:a.git", "git@host:b.git"),
        ("../../x/b.git", "git@host:team/a.git", "git@host:x/b.git"),
        ("../b/", "/srv/a.git", "/srv/b"),
        ("https://other/b.git", "/srv/a.git", "https://other/b.git"),
    ],
)
def test_relative_addresses(url: str, base: str, expected: str) -> None:
    assert absolute(url, base) == expected


def test_a_commit_whose_files_are_still_on_their_way(source: GitSource, shop: GitRepository, tmp_path: Path) -> None:
    shop.commit("main", {"file": "1"})
    source.resolve("shop", shop.url, "main")
    commit = shop.commit("main", {"file": "2", "folder/file": "3"})
    # As somebody who fetches at this moment leaves it: the commit is there, its files are not yet.
    loose = Path(commit[:2], commit[2:])
    there = tmp_path / "mirrors" / "shop.git" / "objects" / loose
    there.parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "shop.git" / "objects" / loose, there)
    source.checkout("shop", shop.url, commit, tmp_path / "work", FakeLog(), GO_ON)
    assert files_of(tmp_path / "work") == {"file": "2", "folder/file": "3"}
