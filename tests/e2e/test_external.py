"""Every server beneath the platform can be somebody else's, by one setting each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from branchline.adapters.caddy_config import document
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import docker, first_start
from branchline.stack.postgres import Postgres
from branchline.stack.registry import Registry
from branchline.stack.removal import remove_instance
from tests.conftest import ports_of_our_own
from tests.e2e.platform import Platform
from tests.plain_vault import PlainVault

pytestmark = [pytest.mark.e2e, pytest.mark.stack]


@pytest.fixture
def vault(home_layout: Layout, tmp_path: Path) -> Iterator[PlainVault]:
    """A Vault that knows nothing of us."""
    somebodys = PlainVault(home_layout, tmp_path)
    try:
        somebodys.start()
        yield somebodys
    finally:
        somebodys.stop()


@pytest.fixture
def guest(
    home_layout: Layout,
    vault: PlainVault,
    registry: Registry,
    postgres_platform: Postgres,
    postgres_nonprod: Postgres,
    postgres_production: Postgres,
) -> Iterator[Platform]:
    """A platform of which only the server and the runners are its own."""
    home = Path(tempfile.mkdtemp(prefix="bl-guest-"))
    home.chmod(0o711)
    layout = first_start.establish(home, docker.networks(), ports_of_our_own())
    settings = Settings(home=home)
    (home / "caddy.json").write_text(json.dumps(document(layout, settings)))
    program = Path(sys.executable).parent / "caddy"
    caddy = subprocess.Popen([program, "run", "--config", home / "caddy.json"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not layout.caddy_admin.exists():
        assert time.monotonic() < until
        time.sleep(0.05)

    platform = Platform(home)
    platform.environment |= {
        "BRANCHLINE_DATABASE_URL": postgres_platform.admin_url("postgres").reveal(),
        "BRANCHLINE_NONPROD_DATABASE_URL": postgres_nonprod.admin_url().reveal(),
        "BRANCHLINE_PRODUCTION_DATABASE_URL": postgres_production.admin_url().reveal(),
        "BRANCHLINE_DATABASE_HOST": str(home_layout.gateway),
        "BRANCHLINE_VAULT_URL": vault.url,
        "BRANCHLINE_REGISTRY": registry.endpoint,
        "BRANCHLINE_CADDY_ADMIN": f"unix/{layout.caddy_admin}",
    }
    try:
        platform.cli("vault", "setup", "--token", "-", input=vault.token())
        platform.up()
        yield platform
    finally:
        platform.cli("stop", check=False)
        caddy.terminate()
        caddy.wait()
        remove_instance(layout.instance)
        shutil.rmtree(home)
        shutil.rmtree(platform.repositories)


def test_a_platform_on_other_peoples_servers(guest: Platform, name: str, postgres_nonprod: Postgres) -> None:
    parts = {part["name"]: part for part in json.loads(guest.cli("status", "--json").stdout)["parts"]}
    external = {part for part, told in parts.items() if told["state"] == "external"}
    assert external == {
        "postgres-platform",
        "postgres-nonprod",
        "postgres-production",
        "openbao",
        "registry",
        "caddy",
    }
    repository = guest.project(name)
    repository.push("first")
    guest.cli("config", "set", name, "develop", "GREETING=hello")
    done = guest.deploy(name)
    assert done["state"] == "succeeded", guest.log(done["id"])
    assert "GREETING" in guest.get(f"develop-{name}.localhost").json()["names"]
    tags = httpx.get(f"http://{guest.environment['BRANCHLINE_REGISTRY']}/v2/{name}/tags/list").json()
    assert len(tags["tags"]) == 1
    with psycopg.connect(postgres_nonprod.admin_url().reveal()) as database:
        names = [row[0] for row in database.execute("SELECT datname FROM pg_database")]
    assert f"{name}_develop_default" in names
