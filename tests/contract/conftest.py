"""What contract tests share: a store, and on Docker a platform's name and addresses of their own, and an image."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from docker import APIClient
from docker.errors import ImageNotFound

from branchline.adapters.containers import DockerContainers
from branchline.adapters.secret_files import remove_instance_files
from branchline.layout import Layout, Ports
from branchline.records import Store
from tests.fakes.store import MemoryStore

BASE_IMAGE = "branchline/python:bookworm"
_APP = Path(__file__).with_name("container_app.py")

BuildImage = Callable[[str], str]


@pytest.fixture(scope="session")
def docker_api() -> Iterator[APIClient]:
    """Docker itself, to look behind the adapter's back."""
    with APIClient(version="auto", timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def docker_layout(docker_api: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """A platform of this process's own; nothing that carries its name outlives the session."""
    taken = [
        IPv4Network(pool["Subnet"])
        for network in docker_api.networks()
        for pool in network["IPAM"]["Config"] or []
        if "." in pool.get("Subnet", "")
    ]
    candidates = [IPv4Network(f"10.{200 + (os.getpid() + step) % 50}.0.0/16") for step in range(50)]
    subnet = next(one for one in candidates if not any(one.overlaps(other) for other in taken))
    instance = f"blt{os.getpid()}"
    yield Layout(tmp_path_factory.mktemp("home"), instance, subnet, Ports(*range(20_000, 20_008)))
    mine = {"label": [f"branchline.instance={instance}"]}
    for container in docker_api.containers(all=True, filters=mine):
        docker_api.remove_container(container["Id"], force=True, v=True)
    for network in docker_api.networks(filters=mine):
        docker_api.remove_network(network["Id"])


@pytest.fixture(scope="session")
def docker_containers(docker_layout: Layout) -> Iterator[DockerContainers]:
    """The real adapter."""
    yield DockerContainers(None, docker_layout)
    remove_instance_files(docker_layout.instance)


@pytest.fixture(scope="session")
def build_image(docker_api: APIClient) -> Iterator[BuildImage]:
    """Builds an image that holds `app`, with further lines of Dockerfile."""
    made: dict[str, str] = {}

    def build(lines: str = "") -> str:
        if lines not in made:
            made[lines] = f"blt{os.getpid()}-app:{len(made)}"
            _build(docker_api, made[lines], lines)
        return made[lines]

    yield build
    for tag in made.values():
        docker_api.remove_image(tag, force=True)


@pytest.fixture(scope="session")
def app_image(build_image: BuildImage) -> str:
    """The image that most tests run."""
    return build_image("")


def _build(docker_api: APIClient, tag: str, lines: str) -> None:
    try:
        docker_api.inspect_image(BASE_IMAGE)
    except ImageNotFound:
        pytest.fail(f"There is no image {BASE_IMAGE}: `make setup` makes it.")
    app = _APP.read_text()
    files = {"Dockerfile": (f"FROM {BASE_IMAGE}\nCOPY app plain /usr/local/bin/\n{lines}\n", 0o644)}
    files |= {"app": (app, 0o755), "plain": (app, 0o644)}
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, (text, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), mode
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    said = list(docker_api.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True))
    errors = [line["error"] for line in said if "error" in line]
    assert not errors, errors


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The platform's own memory, twice."""
    return MemoryStore() if request.param == "fake" else request.getfixturevalue("sql_store")
