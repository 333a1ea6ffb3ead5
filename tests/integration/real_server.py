"""The server's process around the real store and config store, with a project that has been deployed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from branchline.domain.access import Role
from branchline.domain.deployment import State
from branchline.settings import Settings
from branchline.store.database import SqlStore
from tests.contract.git_host import GitRepository
from tests.integration.served import eventually
from tests.integration.test_server_process import Process, answers, free_port, process, token_of

_MANIFEST = "project: {name}\nbuild: {{context: .}}\nservices:\n  web: {{command: serve, port: 8000, routes: [/]}}\n"


@dataclass(frozen=True)
class Place:
    """Where it answers, and what is there. `child` is its process."""

    url: str
    project: str
    repository: Path
    deployment: int
    tokens: dict[Role | None, str]
    child: Process

    def client(self, role: Role = Role.ADMIN) -> httpx.Client:
        """A client of the API with the token of a role: admin or developer."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, trust_env=False, timeout=30)


@contextmanager
def real_server(settings: Settings, store: SqlStore, project: str) -> Iterator[Place]:
    """One that lives as long as the context, and must live at its end."""
    address = f"127.0.0.1:{free_port()}"
    folder = Path(tempfile.mkdtemp(prefix="bl-real-"))
    repository = GitRepository(folder / "shop.git")
    repository.commit("develop", {"branchline.yaml": _MANIFEST.format(name=project)})
    tokens: dict[Role | None, str] = {role: token_of(store, role) for role in (Role.ADMIN, Role.DEVELOPER)}
    url = f"http://{address}"
    try:
        ours = {"BRANCHLINE_SERVER_LISTEN": address, "BRANCHLINE_TRUSTED_PROXIES": "127.0.0.1"}
        with process("-m", "branchline.server.main", home=settings.home, **ours) as child:
            eventually(lambda: answers(url), 30)
            place = Place(url, project, repository.path, 0, tokens, child)
            for role in (Role.ADMIN, Role.DEVELOPER):  # who got in lately still does after many wrong tokens of others
                with place.client(role) as api:
                    assert api.get("/whoami").status_code == 200
            with place.client() as api:
                made = {"name": project, "repository": str(repository.path)}
                assert api.post("/projects", json=made).status_code == 201
                asked = api.post(f"/projects/{project}/deployments", json={"ref": "develop"})
                assert asked.status_code == 201, asked.text
                config = f"/projects/{project}/environments/develop/config"
                assert api.patch(config, json={"changes": {"COLOUR": "blue"}}).status_code == 200
            number = asked.json()["id"]
            store.append_log(number, [(datetime.now(UTC), "build", "a line")])
            with store.transaction() as records:
                records.deployments.finish(number, State.CANCELLED)
            yield Place(url, project, repository.path, number, tokens, child)
            assert child.poll() is None, "the server must have outlived all of that"
    finally:
        shutil.rmtree(folder)
