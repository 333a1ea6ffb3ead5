"""The server of a running platform: what its process is, what it knows, and what its account may not do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import branchline
from branchline.adapters.secret_files import SecretFiles
from branchline.layout import Layout
from branchline.stack.ledger import Ledger
from branchline.stack.process import User, own_server_user
from tests.conftest import new_layout
from tests.contract.git_host import GitRepository

pytestmark = [
    pytest.mark.stack,
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the server another account"),
]

BRANCHLINE = Path(sys.executable).with_name("branchline")
ROOT = Path(__file__).parents[2]
IN_THE_FILE, IN_THE_ENVIRONMENT, IN_THE_SHELL = "word-in-the-file", "word-in-the-environment", "word-in-the-shell"
ITS_KEYS = {"server.pem", "postgres-platform-app.password"}
MANIFEST = "project: shop\nbuild: {context: .}\nservices:\n  web: {command: serve, port: 8000, routes: [/]}\n"


class Running:
    """A platform that was told of a production database, in both ways, by an operator with other secrets."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.environment = {
            **os.environ,
            "BRANCHLINE_HOME": str(layout.home),
            "BRANCHLINE_PRODUCTION_DATABASE_URL": self.database(IN_THE_ENVIRONMENT),
            "AWS_SECRET_ACCESS_KEY": IN_THE_SHELL,
            "NO_COLOR": "1",
        }
        (layout.home / "settings.toml").write_text(f'production_database_url = "{self.database(IN_THE_FILE)}"\n')

    def database(self, password: str) -> str:
        """Something answers there; nobody logs in before anything is deployed to production."""
        return f"postgresql://admin:{password}@127.0.0.1:{self.layout.ports.postgres_nonprod}/postgres"

    def types(self, *words: str) -> str:
        done = subprocess.run(
            [BRANCHLINE, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pid(self, part: str) -> int:
        entry = Ledger(self.layout.run).read(part)
        assert entry is not None
        assert entry.identity is not None
        return entry.identity.pid

    def status(self, part: str) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid(part)}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        token = (self.layout.home / "admin.token").read_text().strip()
        address = f"http://127.0.0.1:{self.layout.ports.server}/api/v1{path}"
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.request(method, address, json=body, headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def user() -> User:
    found = own_server_user()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    layout = new_layout()
    made = Running(layout)
    made.types("up", "--detach")
    yield made
    made.types("stop")
    subprocess.run([sys.executable, "-m", "branchline.stack.removal"], env=made.environment, timeout=200, check=True)


@pytest.fixture
def repository() -> Iterator[GitRepository]:
    """One of root's, that everybody may read."""
    folder = Path(tempfile.mkdtemp(prefix="bl-account-"))
    folder.chmod(0o755)
    yield GitRepository(folder / "shop.git")
    shutil.rmtree(folder)


def knows(pid: int, words: str) -> bool:
    """Whether the words are anywhere in the memory of a process, or among what it was started with."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(edge, 16) for edge in line.split()[0].split("-"))
            if " rw" not in line:
                continue
            with suppress(OSError, ValueError, OverflowError):  # the kernel's own pages
                memory.seek(begin)
                if words.encode() in memory.read(end - begin):
                    return True
    return words.encode() in Path(f"/proc/{pid}/environ").read_bytes()


TRY = """if True:
    import json, os, socket, sys

    def reach(path):
        socket.socket(socket.AF_UNIX, int(path.endswith("forks.sock")) * 4 + 1).connect(path)

    def kill(pid):
        os.kill(int(pid), 0)

    ways = {"connect": reach, "read": lambda path: open(path, "rb").read(1), "list": os.listdir, "signal": kill}
    ways["write"] = lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    for way, what in json.load(sys.stdin):
        try:
            ways[way](what)
        except OSError as error:
            print(way, what, type(error).__name__, sep="\\t")
        else:
            print(way, what, "done", sep="\\t")
"""


def tried(user: User, attempts: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What becomes of attempts by a process of the account that has nothing but the account's rights."""
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        input=json.dumps(attempts),
        capture_output=True,
        text=True,
        check=True,
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {(way, what): outcome for way, what, outcome in lines}


def test_its_process_has_no_rights_but_its_accounts(running: Running, user: User) -> None:
    status = running.status("server")
    assert status["Uid"].split() == [str(user.uid)] * 4
    assert status["Gid"].split() == [str(user.gid)] * 4
    assert status["Groups"] == ""
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert running.status("runner-nonprod")["Uid"].split() == ["0"] * 4, "else this says nothing"


def test_it_knows_no_secret_of_production(running: Running) -> None:
    assert knows(running.pid("runner-production"), IN_THE_ENVIRONMENT), "else this says nothing"
    keys = running.layout.home / "keys"
    foreign = [path.read_text().strip() for path in keys.glob("*.password") if path.name not in ITS_KEYS]
    foreign += [path.read_text().splitlines()[1] for path in keys.glob("*.pem") if path.name not in ITS_KEYS]
    assert len(foreign) == 6
    for words in (IN_THE_FILE, IN_THE_ENVIRONMENT, IN_THE_SHELL, *foreign):
        assert not knows(running.pid("server"), words)
    for words in (IN_THE_FILE, IN_THE_ENVIRONMENT):
        assert not knows(running.pid("runner-nonprod"), words)
        assert not knows(running.pid("fork-server"), words)


def test_it_has_nothing_open_but_its_log_and_its_connections(running: Running) -> None:
    folder = Path(f"/proc/{running.pid('server')}/fd")
    held = {str(one.readlink()) for one in folder.iterdir()}
    files = {one for one in held if one.startswith("/")}
    assert files == {os.devnull, str(running.layout.log / "server.log")}
    others = {process.inode for process in _unix_sockets()}
    assert not [one for one in held if one.startswith("socket:") and int(one[8:-1]) in others]


class _Socket(NamedTuple):
    inode: int
    path: str


def _unix_sockets() -> list[_Socket]:
    """Sockets of this machine that have a name, such as Docker's, or that are connected to one."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return [_Socket(int(words[6]), words[7]) for words in fields if len(words) > 7]


def test_its_account_is_refused_all_that_is_not_its_own(running: Running, user: User) -> None:
    home = running.layout.home
    keys = [path for path in (home / "keys").iterdir() if path.suffix != ".pub" and path.name not in ITS_KEYS]
    assert len(keys) > 8
    reads = [*keys, home / "admin.token", home / "settings.toml", home / "postgres/platform/PG_VERSION"]
    reads += [home / "openbao/data/vault.db", home / "openbao/audit.jsonl", home / "log/runner-production.log"]
    reads += [Path(f"/proc/{running.pid('runner-production')}/{name}") for name in ("environ", "mem")]
    secrets = SecretFiles(running.layout.instance).root() / f"branchline-{running.layout.instance}"
    secrets.mkdir(mode=0o700, exist_ok=True)  # as a deployment makes it
    lists = [home, home / "keys", home / "work", home / "postgres/nonprod", home / "openbao", home / "registry"]
    lists += [home / "git/production", home / "run/parts", secrets]
    writes = [home / "x", home / "keys/x", home / "work/x", home / "work/nonprod/x", home / "git/nonprod/x"]
    writes += [home / "caddy/routes/x", home / "caddy/routes/lock", home / "run/x", home / "run/fork.lock"]
    writes += [home / "log/server.log", home / "stack.json", home / "server/x", home / "server/.gitconfig"]
    writes += [Path(branchline.__file__), home / "bin/x"]
    sockets = ["/var/run/docker.sock", home / "run/forks.sock", home / "run/caddy/admin.sock"]
    attempts = [
        *(("read", str(path)) for path in reads),
        *(("list", str(path)) for path in lists),
        *(("write", str(path)) for path in writes),
        *(("connect", str(path)) for path in sockets),
        *(("signal", str(running.pid(part))) for part in ("runner-production", "openbao", "postgres-platform")),
    ]
    outcomes = tried(user, attempts)
    assert outcomes == dict.fromkeys(attempts, "PermissionError")
    its_own = [("read", str(home / "keys" / name)) for name in sorted(ITS_KEYS)]
    its_own += [("list", str(home / "git/server")), ("read", str(home / "stack.json"))]
    assert tried(user, its_own) == dict.fromkeys(its_own, "done")


def test_it_does_its_work(running: Running, repository: GitRepository) -> None:
    commit = repository.commit("develop", {"branchline.yaml": MANIFEST})
    assert running.api("GET", "/whoami").status_code == 200
    added = running.api("POST", "/projects", {"name": "shop", "repository": str(repository.path)})
    assert added.status_code == 201
    asked = running.api("POST", "/projects/shop/deployments", {"ref": "develop"})
    assert asked.status_code == 201, asked.text
    assert asked.json()["commit"] == commit
    changed = running.api("PATCH", "/projects/shop/environments/develop/config", {"changes": {"COLOUR": "blue"}})
    assert changed.status_code == 200, changed.text


def test_the_first_token_is_roots_alone(running: Running) -> None:
    status = (running.layout.home / "admin.token").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
    assert not running.layout.first_token.exists()
    assert (running.layout.home / "settings.toml").stat().st_mode & 0o777 == 0o600


def test_doctor_says_who_it_runs_as(running: Running, user: User) -> None:
    found = json.loads(running.types("doctor", "--json"))["findings"]
    [account] = [finding for finding in found if finding["subject"] == "server's account"]
    assert account["well"]
    assert user.name in account["text"]


def test_a_server_of_root_is_replaced_and_what_it_left_is_handed_over(
    running: Running, user: User, repository: GitRepository
) -> None:
    """As after an update of Branchline from a version whose server had no account of its own."""
    home = running.layout.home
    os.kill(running.pid("supervisor"), signal.SIGKILL)
    os.kill(running.pid("server"), signal.SIGKILL)
    mirrors = home / "git" / "server"
    (mirrors / "old.git").mkdir(exist_ok=True)
    (mirrors / "old.git" / "link").symlink_to("/etc/passwd")
    for path in (mirrors, *mirrors.rglob("*"), *(home / "keys" / name for name in ITS_KEYS)):
        os.lchown(path, 0, 0)
    command = [sys.executable, "-P", "-m", "branchline.server.main"]
    before = subprocess.Popen(command, cwd=home, env=running.environment, start_new_session=True)
    try:
        eventually(lambda: running.api("GET", "/whoami").status_code == 200)
        running.types("up", "--detach")
        assert before.wait(10) == 0
    finally:
        before.kill()
    assert running.status("server")["Uid"].split() == [str(user.uid)] * 4
    assert {path.lstat().st_uid for path in mirrors.rglob("*")} == {user.uid}
    assert Path("/etc/passwd").stat().st_uid == 0
    repository.commit("develop", {"branchline.yaml": MANIFEST.replace("shop", "again")})
    assert running.api("POST", "/projects", {"name": "again", "repository": str(repository.path)}).status_code == 201
    asked = running.api("POST", "/projects/again/deployments", {"ref": "develop"})
    assert asked.status_code == 201, asked.text


def eventually(true: Callable[[], bool], limit: float = 30) -> None:
    end = time.monotonic() + limit
    while True:
        with suppress(httpx.TransportError):
            if true():
                return
        assert time.monotonic() < end
        time.sleep(0.1)
