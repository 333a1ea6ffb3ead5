"""The real servers beneath the platform: what they keep, whom they let in, and that nothing kills them for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import docker, first_start
from branchline.stack.inspection import look
from branchline.stack.ledger import SUPERVISOR, Ledger, State
from branchline.stack.openbao import OpenBao
from branchline.stack.openbao_rules import arrange
from branchline.stack.part import NotReady, Running, running
from branchline.stack.postgres import Cluster, Postgres
from branchline.stack.registry import Registry
from tests.conftest import discard, new_layout

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
SERVERS = ["openbao", "registry", "caddy", "postgres-platform", "postgres-nonprod", "postgres-production"]


# --- each server alone -----------------------------------------------------------------------------------------------


def test_every_server_answers(
    stack: tuple[Settings, Layout], postgres_nonprod: Postgres, openbao: OpenBao, registry: Registry
) -> None:
    with psycopg.connect(postgres_nonprod.admin_url().reveal()) as connection:
        row = connection.execute("SELECT current_setting('server_version_num'), current_setting('data_checksums')")
        version, checksums = row.fetchone() or ("", "")
    assert int(version) >= 180000
    assert checksums == "on"
    assert httpx.get(f"{openbao.endpoint}/v1/sys/health").json()["sealed"] is False
    assert httpx.get(f"http://{registry.endpoint}/v2/_catalog").status_code == 200
    assert httpx.get(f"http://127.0.0.1:{stack[1].ports.proxy}/", headers={"Host": "nobody"}).status_code == 404


def test_postgres_lets_each_role_into_its_own_database_alone(postgres_nonprod: Postgres, home_layout: Layout) -> None:
    with postgres_nonprod.connection() as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'welcome'")
        connection.execute("CREATE DATABASE guest OWNER guest")
    gateway = home_layout.gateway
    try:
        with psycopg.connect(f"postgresql://guest:welcome@127.0.0.1:{postgres_nonprod.port}/guest") as own:
            assert own.execute("SELECT current_user").fetchone() == ("guest",)
        for database in ("postgres", "template1"):
            with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
                psycopg.connect(f"postgresql://guest:welcome@127.0.0.1:{postgres_nonprod.port}/{database}")
        password = home_layout.key("postgres-nonprod.password").reveal()
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
            psycopg.connect(f"postgresql://postgres:{password}@{gateway}:{postgres_nonprod.port}/postgres")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{postgres_nonprod.port}/postgres")
    finally:
        with postgres_nonprod.connection() as connection:
            connection.execute("DROP DATABASE guest WITH (FORCE)")
            connection.execute("DROP ROLE guest")


def test_containers_reach_the_cluster_of_their_tier_and_nothing_else(
    stack: tuple[Settings, Layout], docker_network: str
) -> None:
    """From a network of its own, as an environment's container is in one."""
    layout = stack[1]
    ports = [layout.ports.postgres_nonprod, layout.ports.postgres_platform, layout.ports.openbao, layout.ports.registry]
    code = (
        "import socket\n"
        f"for port in {ports}:\n"
        "    probe = socket.socket(); probe.settimeout(2)\n"
        f"    print(probe.connect_ex(('{layout.gateway}', port)))\n"
    )
    with docker.engine(limit=60) as engine:
        said = engine.containers.run(
            "branchline/python:bookworm",
            ["python3", "-c", code],
            network=docker_network,
            remove=True,
            labels={docker.INSTANCE_LABEL: layout.instance},
        )
    reached, *refused = said.decode().split()
    assert reached == "0"
    assert "0" not in refused


@pytest.fixture
def docker_network(home_layout: Layout) -> Iterator[str]:
    from docker.types import IPAMConfig, IPAMPool

    name = f"{home_layout.instance}-visitor"
    with docker.engine(limit=60) as engine:
        network = engine.networks.create(
            name,
            labels={docker.INSTANCE_LABEL: home_layout.instance},
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(home_layout.network(1000)))]),
        )
        yield name
        network.remove()


def test_openbao_keeps_no_root_token_and_nobody_else_gets_in(openbao: OpenBao, home_layout: Layout) -> None:
    assert httpx.get(f"{openbao.endpoint}/v1/sys/mounts").status_code == 403
    for name in ("server", "nonprod", "production", "operator"):
        answer = httpx.post(f"{openbao.endpoint}/v1/auth/jwt-{name}/login", json={"role": "operator", "jwt": "x.y.z"})
        assert answer.status_code in {400, 403}
    arrange(f"127.0.0.1:{home_layout.ports.openbao}", home_layout)  # as an upgrade would


def test_an_unfinished_first_start_of_openbao_is_begun_anew() -> None:
    layout = new_layout()
    try:
        part = OpenBao(layout, first_start.account())
        interrupted = Running(part, layout.log / "openbao.log")
        part.prepare()
        from branchline.stack.process import Process

        interrupted.process = Process.start(part.command(), layout.log / "openbao.log")
        _eventually((layout.home / "openbao" / "data" / "vault.db").exists)
        interrupted.kill()
        with running(part, layout.log):
            part.check()
    finally:
        discard(layout)


def test_an_unfinished_initdb_is_begun_anew() -> None:
    layout = new_layout()
    try:
        half = layout.home / "postgres" / "platform.partial"
        half.mkdir()
        (half / "PG_VERSION").write_text("18\n")
        part = Postgres(layout, Cluster.PLATFORM, first_start.account())
        with running(part, layout.log):
            password = layout.key("postgres-platform-app.password").reveal()
            url = f"postgresql://branchline:{password}@127.0.0.1:{part.port}/branchline"
            with psycopg.connect(url) as connection:
                connection.execute("CREATE TABLE room_to_live_in (id int)")
        assert not half.exists()
    finally:
        discard(layout)


def test_a_pid_file_of_before_the_reboot_does_not_keep_postgres_down() -> None:
    layout = new_layout()
    try:
        part = Postgres(layout, Cluster.PLATFORM, first_start.account())
        with running(part, layout.log) as alone:
            alone.kill()
        file = layout.home / "postgres" / "platform" / "postmaster.pid"
        lines = file.read_text().splitlines()
        # The number of a process that lives, and that PostgreSQL may send signals to.
        file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        with running(part, layout.log):
            part.check()
    finally:
        discard(layout)


# --- all of them, under a supervisor ---------------------------------------------------------------------------------


class Platform:
    """The servers of one home under a supervisor, which is a process of its own."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.settings = Settings(home=layout.home)
        self.ledger = Ledger(layout.run)
        self.said = layout.home / "said"
        self._supervisor: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        with self.said.open("wb") as said:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.supervised", str(self.layout.home)], cwd=ROOT, stdout=said
            )
        _eventually(self.is_up, 60, self.said)

    def is_up(self) -> bool:
        assert self._supervisor is not None
        entry = self.ledger.read(SUPERVISOR)
        ours = entry is not None and entry.identity is not None and entry.identity.pid == self._supervisor.pid
        return ours and entry is not None and entry.state is State.UP

    def kill_supervisor(self) -> None:
        assert self._supervisor is not None
        self._supervisor.kill()
        self._supervisor.wait()

    def stop(self) -> int:
        assert self._supervisor is not None
        self._supervisor.terminate()
        return self._supervisor.wait(60)

    def pids(self) -> dict[str, int]:
        """The processes of the parts that are up."""
        entries = [self.ledger.read(part) for part in SERVERS]
        return {one.part: one.identity.pid for one in entries if one and one.identity and one.state is State.UP}

    def reborn(self, part: str, former: int) -> bool:
        return self.pids().get(part, former) != former

    def write(self, cluster: str, value: int) -> None:
        with Postgres(self.layout, Cluster(cluster), first_start.account()).connection() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
            connection.execute("INSERT INTO kept VALUES (%s)", (value,))

    def kept(self, cluster: str) -> set[int]:
        with Postgres(self.layout, Cluster(cluster), first_start.account()).connection() as connection:
            return {value for (value,) in connection.execute("SELECT value FROM kept")}

    def processes(self) -> list[psutil.Process]:
        """Everything that runs out of this home."""
        home = str(self.layout.home)
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and any(home in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """One for all tests; each leaves it up."""
    layout = new_layout()
    made = Platform(layout)
    made.up()
    yield made
    if made.stop():
        raise AssertionError(made.said.read_text())
    assert made.processes() == []
    assert made.ledger.entries() == []
    discard(layout)


def _eventually(true: Callable[[], object], limit: float = 20, said: Path | None = None) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, said.read_text() if said else "it did not come true in time"
        time.sleep(0.05)


def test_whatever_is_killed_comes_back_with_its_data(platform: Platform) -> None:
    for cluster in ("platform", "nonprod", "production"):
        platform.write(cluster, 42)
    registry = f"http://127.0.0.1:{platform.layout.ports.registry}"
    upload = httpx.post(f"{registry}/v2/thing/blobs/uploads/").headers["location"]
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert httpx.put(f"{upload}&digest={digest}", content=b"hello").status_code == 201

    before = platform.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    _eventually(lambda: all(platform.reborn(part, before[part]) for part in SERVERS), 40)

    for cluster in ("platform", "nonprod", "production"):
        assert 42 in platform.kept(cluster)
    assert httpx.get(f"{registry}/v2/thing/blobs/{digest}").content == b"hello"
    arrange(f"127.0.0.1:{platform.layout.ports.openbao}", platform.layout)
    restarts = {part.name: part.restarts for part in look(platform.settings).parts}
    assert all(restarts[part] >= 1 for part in SERVERS)


def test_the_supervisor_may_die_its_parts_are_taken_over(platform: Platform) -> None:
    before = platform.pids()
    platform.kill_supervisor()
    seen = look(platform.settings)
    assert seen.supervisor is None
    assert {part.state for part in seen.parts if part.name in SERVERS} == {State.UP}

    os.kill(before["registry"], signal.SIGKILL)  # while nobody watches
    platform.up()
    after = platform.pids()
    assert after.pop("registry") != before.pop("registry")
    assert after == before
    os.kill(after["caddy"], signal.SIGKILL)  # one that was taken over is watched like any other
    _eventually(lambda: platform.reborn("caddy", after["caddy"]))


def test_a_second_supervisor_is_refused_and_disturbs_nothing(platform: Platform) -> None:
    before = platform.pids()
    command = [sys.executable, "-m", "tests.integration.supervised", str(platform.layout.home)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 2
    assert second.stdout.startswith("already_running")
    assert platform.pids() == before


def test_stopped_and_started_again_everything_is_still_there(platform: Platform) -> None:
    platform.write("platform", 7)
    files = {file.name: file.read_bytes() for file in (platform.layout.home / "keys").iterdir()}
    chosen = json.loads((platform.layout.home / "stack.json").read_text())
    assert platform.stop() == 0
    assert platform.processes() == []

    first_start.establish(platform.layout.home)
    began = time.monotonic()
    platform.up()
    assert time.monotonic() - began < 20
    assert 7 in platform.kept("platform")
    assert {file.name: file.read_bytes() for file in (platform.layout.home / "keys").iterdir()} == files
    assert json.loads((platform.layout.home / "stack.json").read_text()) == chosen


def test_a_removed_bridge_is_made_again(platform: Platform) -> None:
    docker.Bridge(platform.layout).remove()
    with pytest.raises(NotReady):
        docker.Bridge(platform.layout).check()
    part = docker.Bridge(platform.layout)

    def is_back() -> bool:
        try:
            part.check()
        except NotReady:
            return False
        return True

    _eventually(is_back, 30)
    Postgres(platform.layout, Cluster.NONPROD, first_start.account()).check()  # reached by the gateway again


def test_secrets_lie_in_private_files_and_in_no_argument_list(platform: Platform) -> None:
    keys = platform.layout.home / "keys"
    for file in keys.iterdir():
        if file.suffix != ".pub":
            assert file.stat().st_mode & 0o077 == 0, file
    secrets = [file.read_bytes().strip() for file in keys.iterdir() if file.suffix in {".password", ".key", ".secret"}]
    for process in platform.processes():
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert not any(secret in line for secret in secrets)
    logs = b"".join(log.read_bytes() for log in platform.layout.log.glob("*.log"))
    assert not any(secret in logs for secret in secrets)
    if os.geteuid() == 0:
        assert {psutil.Process(pid).username() for pid in platform.pids().values()} == {"branchline"}
