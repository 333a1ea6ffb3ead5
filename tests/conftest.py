"""Real servers for tests, started when the first test asks for them and gone when the session ends.

`stack` is the whole of them; `postgres_nonprod`, `openbao`, `registry` and `caddy` start one alone. They share one
home, so `home_layout` says where everything is, whichever of them run.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from branchline.endpoints import Endpoints
from branchline.layout import Layout, Ports
from branchline.settings import Settings
from branchline.stack import docker, first_start
from branchline.stack.caddy import Caddy
from branchline.stack.openbao import OpenBao
from branchline.stack.part import running
from branchline.stack.postgres import Cluster, Postgres
from branchline.stack.registry import Registry
from branchline.stack.removal import remove_instance
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate

_bases = itertools.count(random.Random(os.getpid()).randrange(11_000, 29_000, 100), 10)
_subnets: list[IPv4Network] = []


def ports_of_our_own() -> Ports:
    """Ports to try first, at a place of this process's own, and others each time: servers may start much later."""
    base = next(_bases)
    return Ports(**{field.name: base + number for number, field in enumerate(fields(Ports))})


def new_layout() -> Layout:
    """A fresh home in a folder that the servers' account can reach, with keys and choices made."""
    home = Path(tempfile.mkdtemp(prefix=f"bl-test-{os.getpid()}-"))
    layout = first_start.establish(home, [*docker.networks(), *_subnets], ports_of_our_own())
    _subnets.append(layout.subnet)
    return layout


def discard(layout: Layout) -> None:
    """Remove the home, and what carries its instance's name in Docker."""
    _subnets.remove(layout.subnet)
    remove_instance(layout.instance)
    shutil.rmtree(layout.home)


@pytest.fixture(scope="session")
def home_layout() -> Iterator[Layout]:
    """A home in which nothing runs yet."""
    layout = new_layout()
    yield layout
    discard(layout)


@pytest.fixture(scope="session")
def settings(home_layout: Layout) -> Settings:
    """The default settings of that home."""
    return Settings(home=home_layout.home)


@pytest.fixture(scope="session")
def bridge(home_layout: Layout) -> docker.Bridge:
    """The platform's network in Docker: `home_layout.gateway` is an address of this machine from here on."""
    part = docker.Bridge(home_layout)
    part.prepare()
    return part


@pytest.fixture(scope="session")
def postgres_platform(home_layout: Layout) -> Iterator[Postgres]:
    """The cluster of the platform's own tables, with the database and the role `branchline`."""
    part = Postgres(home_layout, Cluster.PLATFORM, first_start.account())
    with running(part, home_layout.log):
        yield part


@pytest.fixture(scope="session")
def postgres_nonprod(home_layout: Layout, bridge: docker.Bridge) -> Iterator[Postgres]:
    """The cluster of nonprod environments; `admin_url()` is how the superuser connects."""
    part = Postgres(home_layout, Cluster.NONPROD, first_start.account())
    with running(part, home_layout.log):
        yield part


@pytest.fixture(scope="session")
def postgres_production(home_layout: Layout, bridge: docker.Bridge) -> Iterator[Postgres]:
    """The cluster of production."""
    part = Postgres(home_layout, Cluster.PRODUCTION, first_start.account())
    with running(part, home_layout.log):
        yield part


@pytest.fixture(scope="session")
def openbao(home_layout: Layout) -> Iterator[OpenBao]:
    """OpenBao with its mounts, policies and roles; `endpoint` is its URL, the keys lie under the home."""
    part = OpenBao(home_layout, first_start.account())
    with running(part, home_layout.log):
        yield part


@pytest.fixture(scope="session")
def registry(home_layout: Layout) -> Iterator[Registry]:
    """The registry; `endpoint` is its host and port."""
    part = Registry(home_layout, first_start.account())
    with running(part, home_layout.log):
        yield part


@pytest.fixture(scope="session")
def caddy(home_layout: Layout, settings: Settings) -> Iterator[Caddy]:
    """The proxy, listening on `home_layout.ports.proxy`."""
    part = Caddy(home_layout, settings, first_start.account())
    with running(part, home_layout.log):
        yield part


@pytest.fixture(scope="session")
def stack(
    settings: Settings,
    home_layout: Layout,
    postgres_platform: Postgres,
    postgres_nonprod: Postgres,
    postgres_production: Postgres,
    openbao: OpenBao,
    registry: Registry,
    caddy: Caddy,
) -> tuple[Settings, Layout]:
    """All the servers of a platform, with its settings and its layout."""
    return settings, home_layout


@pytest.fixture(scope="session")
def sql_store(settings: Settings, home_layout: Layout, postgres_platform: Postgres) -> SqlStore:
    """The platform's own tables, migrated and empty."""
    engine = connect(Endpoints(settings, home_layout).platform_database)
    with exclusively(engine):
        migrate(engine)
    return SqlStore(engine)
