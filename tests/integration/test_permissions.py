"""Who may do what, walked: every route, every command and every button names a permission, and holds to it.

Behind the real server are the real operations, on a store in memory. Each row is tried by somebody of each role: where
the role holds the row's permission they get through, else they are refused, and the register says for want of what.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command

from branchline.bootstrap.server import ServerPlatform
from branchline.cli.commands import COMMANDS
from branchline.domain.access import EVERYWHERE, ROLES, Actor, Permission, Role
from branchline.domain.audit import Kind
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Destination, Tier
from branchline.operations.chores import Chores
from branchline.operations.config import Settings as Config
from branchline.operations.config_ledger import ConfigLedger
from branchline.operations.devices import Devices
from branchline.operations.failures import FailedLogins
from branchline.operations.gate import Gate
from branchline.operations.logins import Logins
from branchline.operations.members import Members
from branchline.operations.projects import Environments, Projects
from branchline.operations.provenance import Provenance
from branchline.operations.register import Audit, Pulse
from branchline.operations.requests import Deployments
from branchline.operations.sessions import Sessions
from branchline.operations.tokens import Tokens
from branchline.operations.views import Views
from branchline.ports import Revision
from branchline.server.auth import OPEN_ROUTES
from branchline.wire_people import NewToken
from tests.fakes.command_line import CommandLine
from tests.fakes.config import FakeConfigStore
from tests.fakes.notary import FakeNotary
from tests.fakes.source import FakeSource
from tests.fakes.store import MemoryStore
from tests.integration.served import recorded, served
from tests.integration.test_api_access import ROUTES

MANIFEST = """\
project: shop
services: {web: {command: serve, port: 8000, routes: [/]}}
environments:
  develop: {on: {branch: develop}}
  production: {on: {tag: "v*"}}
"""
ROOT = Actor("root", "token root", {EVERYWHERE: Role.ADMIN})
PEOPLE: list[Role | None] = [None, *Role]


class World:
    """A project with an environment of each tier, each live and with a deployment that waits; people of each role."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.source = FakeSource()
        gate, views = Gate(self.store), Views(lambda name: f"http://{name}")
        writer = FakeConfigStore().writer()
        ledger = ConfigLedger(self.store, writer)
        provenance = Provenance(self.store, gate, writer, ledger)
        tokens = Tokens(self.store, gate)
        sessions = Sessions(self.store, gate, tokens)
        self.platform = ServerPlatform(
            tokens=tokens,
            members=Members(self.store, gate),
            projects=Projects(self.store, gate, views),
            environments=Environments(self.store, gate, views, provenance),
            deployments=Deployments(self.store, gate, views, self.source, "test"),
            config=Config(self.store, gate, writer, ledger),
            provenance=provenance,
            logins=Logins(self.store, sessions, FailedLogins(self.store), [], "http://localhost"),
            sessions=sessions,
            devices=Devices(self.store, gate, tokens, "http://localhost"),
            audit=Audit(self.store, gate, FakeNotary()),
            pulse=Pulse(self.store),
            chores=Chores(self.store, "server", [], print),
        )
        hosted = self.source.host("/srv/shop.git")
        commit = hosted.commit("develop", {"branchline.yaml": MANIFEST})
        hosted.tag("v1", commit)
        self.platform.projects.add(ROOT, "shop", "/srv/shop.git")
        self.platform.projects.add(ROOT, "till", "/srv/till.git")
        for number, (name, ref) in enumerate((("develop", "refs/heads/develop"), ("production", "refs/tags/v1"))):
            self.deploy(name, Revision(ref, commit, ""), wait=number * 2 + 2)
            self.platform.config.change(ROOT, "shop", name, {"A": "1"})
        self.deploy("staging", Revision("refs/heads/staging", commit, ""))
        self.platform.config.change(ROOT, "shop", "staging", {"A": "2"})
        self.platform.members.add(ROOT, "bob", Role.VIEWER, "shop")
        self.platform.members.add(ROOT, "bob", Role.VIEWER)
        self.platform.members.add(ROOT, "github:acme/ops", Role.VIEWER, "shop", group=True)
        self.platform.members.add(ROOT, "github:acme/ops", Role.VIEWER, group=True)
        self.platform.tokens.create(ROOT, NewToken(name="ci", role=Role.VIEWER))
        self.tokens = {role: self.person(role) for role in PEOPLE}
        self.before = len(self.store.tables.events)

    def deploy(self, name: str, revision: Revision, wait: int = 0) -> None:
        """One is live; where `wait` says so, another waits and gets that number."""
        with self.store.transaction() as records:
            project = records.projects.get("shop")
            tier = Tier.PRODUCTION if name == "production" else Tier.NONPROD
            place = records.environments.ensure(project, Destination(name, tier))
            records.environments.claim_hostnames(place, [f"{name}.test"])
            live = records.deployments.add(place, revision, actor="ada", trigger=Trigger.CLI, reason="")
            records.deployments.note_config(live.id, {})
            records.deployments.finish(live.id, State.SUCCEEDED)
            records.environments.set_live(place, live.id)
            if wait:
                waits = records.deployments.add(place, revision, actor="ada", trigger=Trigger.CLI, reason="")
                assert waits.id == wait

    def person(self, role: Role | None) -> str:
        """The token of somebody who has the role in `shop`; an admin's is one everywhere, and `None` has none."""
        name = f"a-{role}"
        where = None if role is Role.ADMIN else "shop"
        self.platform.members.add(ROOT, name, role or Role.VIEWER, where)
        made = self.platform.tokens.create(ROOT, NewToken(name="mine", member=name))
        self.platform.tokens.create(ROOT, NewToken(name="other", member=name))
        if role is None:
            self.platform.members.remove(ROOT, name, where)
        return made.token

    def refusals(self) -> list[str]:
        """What was refused since the beginning: the permissions that were lacking."""
        new = [event for _, event in self.store.tables.events[self.before :]]
        return [event.detail["permission"] for event in new if event.kind is Kind.ACCESS_REFUSED]


class Swapped:
    """The platform of the world that is tried now, so that one server does for all of them."""

    world: World

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.platform, name)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Swapped]]:
    platform = Swapped()
    platform.world = World()
    with recorded(), served(platform) as url:  # type: ignore[arg-type]
        yield url, platform


@dataclass(frozen=True)
class Row:
    """A request, and the permission that it takes."""

    method: str
    route: str
    permission: Permission
    path: dict[str, str] = field(default_factory=dict)
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    also: tuple[Permission, ...] = ()
    """What is asked for before, and is held by nobody who holds less."""

    @property
    def address(self) -> str:
        known = {"project": "shop", "environment": "develop", "id": "2", "key": "A", "name": "bob", "other": "staging"}
        address = self.route
        for name, value in (known | self.path).items():
            address = address.replace(f"{{{name}}}", value)
        return address

    def __str__(self) -> str:
        return f"{self.method} {self.address} {self.permission}"


P = Permission
_ENV = "/api/v1/projects/{project}/environments/{environment}"
_LIVE = {"environment": "production"}
_PROD_ID = {"id": "4"}
_TEAM = {"name": "github:acme%2Fops"}


def _config(method: str, rest: str, nonprod: Permission, production: Permission, body: Any = None) -> list[Row]:
    return [
        Row(method, f"{_ENV}/config{rest}", nonprod, body=body),
        Row(method, f"{_ENV}/config{rest}", production, _LIVE, body),
    ]


API = [
    Row("GET", "/api/v1/projects", P.READ),
    Row("POST", "/api/v1/projects", P.PROJECTS, body={"name": "new", "repository": "/srv/new.git"}),
    Row("GET", "/api/v1/projects/{project}", P.READ),
    Row("POST", "/api/v1/projects/{project}/deployments", P.DEPLOY, body={"ref": "develop"}),
    Row("POST", "/api/v1/projects/{project}/deployments", P.DEPLOY_PRODUCTION, body={"ref": "v1"}),
    Row("GET", "/api/v1/projects/{project}/environments", P.READ),
    Row("GET", _ENV, P.READ),
    Row("GET", _ENV, P.READ, _LIVE),
    *_config("GET", "", P.READ, P.CONFIG_PRODUCTION),
    *_config("PATCH", "", P.CONFIG_WRITE, P.CONFIG_PRODUCTION, {"changes": {"B": "1"}}),
    *_config("GET", "/keys/{key}", P.CONFIG_READ, P.CONFIG_READ_PRODUCTION),
    *_config("PUT", "/keys/{key}", P.CONFIG_WRITE, P.CONFIG_PRODUCTION, {"value": "2"}),
    *_config("DELETE", "/keys/{key}", P.CONFIG_WRITE, P.CONFIG_PRODUCTION),
    *_config("GET", "/values", P.CONFIG_READ, P.CONFIG_READ_PRODUCTION),
    *_config("GET", "/explanation", P.READ, P.CONFIG_PRODUCTION),
    *_config("GET", "/history", P.READ, P.CONFIG_PRODUCTION),
    *_config("GET", "/diff/{other}", P.CONFIG_READ, P.CONFIG_PRODUCTION),
    Row("GET", f"{_ENV}/config/diff/{{other}}", P.CONFIG_PRODUCTION, {"other": "production"}, also=(P.CONFIG_READ,)),
    *_config("POST", "/apply", P.DEPLOY, P.DEPLOY_PRODUCTION, {}),
    Row("GET", "/api/v1/deployments", P.READ),
    Row("GET", "/api/v1/deployments", P.READ, query={"project": "shop"}),
    Row("GET", "/api/v1/deployments/{id}", P.READ),
    Row("GET", "/api/v1/deployments/{id}", P.READ, _PROD_ID),
    Row("POST", "/api/v1/deployments/{id}/cancel", P.DEPLOY),
    Row("POST", "/api/v1/deployments/{id}/cancel", P.DEPLOY_PRODUCTION, _PROD_ID),
    Row("GET", "/api/v1/deployments/{id}/log", P.READ),
    Row("GET", "/api/v1/deployments/{id}/events", P.READ, {"id": "1"}),
    Row("GET", "/api/v1/members", P.PLATFORM),
    Row("GET", "/api/v1/members", P.MEMBERS, query={"project": "shop"}),
    Row("POST", "/api/v1/members", P.PLATFORM, body={"name": "bob", "role": "viewer"}),
    Row("POST", "/api/v1/members", P.MEMBERS, body={"name": "bob", "role": "developer", "project": "shop"}),
    Row("DELETE", "/api/v1/members/{name}", P.PLATFORM),
    Row("DELETE", "/api/v1/members/{name}", P.MEMBERS, query={"project": "shop"}),
    Row("DELETE", "/api/v1/sessions/{member}", P.PLATFORM, {"member": "bob"}),
    Row("DELETE", "/api/v1/groups/{name}", P.PLATFORM, _TEAM),
    Row("DELETE", "/api/v1/groups/{name}", P.MEMBERS, _TEAM, query={"project": "shop"}),
    Row("GET", "/api/v1/tokens", P.OWN_TOKENS),
    Row("POST", "/api/v1/tokens", P.OWN_TOKENS, body={"name": "laptop"}),
    Row("POST", "/api/v1/tokens", P.PLATFORM, body={"name": "laptop", "member": "bob"}),
    Row("POST", "/api/v1/tokens", P.PLATFORM, body={"name": "robot", "role": "viewer"}),
    Row("DELETE", "/api/v1/tokens/{name}", P.OWN_TOKENS, {"name": "other"}),
    Row("DELETE", "/api/v1/tokens/{name}", P.PLATFORM, {"name": "ci"}),
    Row("GET", "/api/v1/audit", P.READ),
    Row("GET", "/api/v1/audit/keys", P.READ),
    Row("GET", "/api/v1/audit/verification", P.PLATFORM),
    Row("GET", "/api/v1/audit/export", P.PLATFORM),
    Row("GET", "/api/v1/audit", P.READ, query={"project": "shop"}),
]

PAGES = [
    Row("GET", "/", P.READ),
    Row("GET", "/register", P.READ),
    Row("GET", "/register", P.READ, query={"project": "shop"}),
    Row("GET", "/projects/{project}", P.READ),
    Row("POST", "/projects/{project}/deployments", P.DEPLOY, body={"ref": "develop"}),
    Row("POST", "/projects/{project}/deployments", P.DEPLOY_PRODUCTION, body={"ref": "v1"}),
    Row("GET", "/deployments/{id}", P.READ),
    Row("POST", "/deployments/{id}/cancel", P.DEPLOY),
    Row("POST", "/deployments/{id}/cancel", P.DEPLOY_PRODUCTION, _PROD_ID),
    Row("GET", "/deployments/{id}/log", P.READ),
    Row("GET", "/deployments/{id}/events", P.READ, {"id": "1"}),
]

ONESELF = {
    ("GET", "/api/v1/whoami"),
    ("POST", "/api/v1/logout"),
    ("GET", "/api/v1/sessions"),
    ("DELETE", "/api/v1/sessions"),
    ("GET", "/account"),
    ("POST", "/account/logout-everywhere"),
    ("POST", "/logout"),
    ("GET", "/device"),
    ("POST", "/device"),  # for a device of one's own: `test_devices` shows for whom
}
"""What is about nobody but the caller, and tells them nothing that they do not know."""


def test_every_route_is_in_the_table() -> None:
    walked = {(row.method, row.route) for row in (*API, *PAGES)}
    assert {(method, route.path_format) for route in ROUTES for method in route.methods} - walked - ONESELF == {
        (method, route.path_format) for route in ROUTES for method in route.methods if route.path in OPEN_ROUTES
    }


def held_to(row: Row, role: Role | None, refused: bool, lacking: list[str]) -> None:
    """Assert that who has the role got through, or was refused for want of the right thing, on record."""
    if role is not None and row.permission in ROLES[role]:
        assert not refused, f"{role} is refused"
        assert lacking == []
        return
    assert refused, f"{role} gets through"
    doors = {row.permission, *row.also} - ROLES.get(role, frozenset()) if role else {row.permission, Permission.READ}
    assert lacking
    assert set(lacking) <= doors


@pytest.mark.parametrize("role", PEOPLE, ids=str)
@pytest.mark.parametrize("row", API, ids=str)
def test_the_api_holds_to_the_table(running: tuple[str, Swapped], row: Row, role: Role | None) -> None:
    url, platform = running
    platform.world = world = World()
    headers = {"Authorization": f"Bearer {world.tokens[role]}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=10) as client:
        answer = client.request(row.method, row.address, json=row.body, params=row.query)
    let_in = answer.is_success or (answer.status_code, row.route[-6:]) == (409, "/apply")  # another one is under way
    assert let_in or answer.status_code == 403, answer.text
    held_to(row, role, answer.status_code == 403, world.refusals())
    if answer.status_code == 403:
        assert answer.json()["code"] in {"refused", "production_config_unreadable"}
        assert answer.json()["hint"]


@pytest.mark.parametrize("role", PEOPLE, ids=str)
@pytest.mark.parametrize("row", PAGES, ids=str)
def test_the_dashboard_holds_to_the_table(running: tuple[str, Swapped], row: Row, role: Role | None) -> None:
    url, platform = running
    platform.world = world = World()
    headers = {"Origin": url, "Accept": "text/html"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=10) as browser:
        assert browser.post("/login", data={"token": world.tokens[role]}).status_code == 303
        answer = browser.request(row.method, row.address, data=row.body, params=row.query)
    assert answer.status_code in {200, 303, 403}, answer.text
    held_to(row, role, answer.status_code == 403, world.refusals())
    if role is not None and answer.status_code == 200 and row.route == "/projects/{project}":
        assert ("<form" in answer.text.partition("<main")[2]) == (P.DEPLOY in ROLES[role]), "only what works is offered"


@pytest.mark.parametrize("row", [row for row in API if "{project}" in row.route or "{id}" in row.route], ids=str)
def test_a_role_in_one_project_is_none_in_another(running: tuple[str, Swapped], row: Row) -> None:
    url, platform = running
    platform.world = world = World()
    world.platform.members.add(ROOT, "max", Role.MAINTAINER, "till")
    token = world.platform.tokens.create(ROOT, NewToken(name="x", member="max")).token
    world.before = len(world.store.tables.events)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client:
        answer = client.request(row.method, row.address, json=row.body, params=row.query)
        assert answer.status_code == 403, answer.text
        assert len(world.refusals()) == 1
        if "{id}" in row.route:
            assert "shop" not in answer.text, "numbers are guessed: what they belong to is not told"
        for where in ("/api/v1/projects", "/api/v1/deployments", "/api/v1/audit"):
            assert "shop" not in client.get(where).text, "lists leave out what one may not see"


@pytest.mark.parametrize("by", ["token", "session"])
def test_who_loses_the_role_follows_no_more(
    running: tuple[str, Swapped], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("branchline.server.events.KEEP_ALIVE", 0.1)
    monkeypatch.setattr("branchline.server.auth.LOOK_AGAIN", 0.1)
    url, platform = running
    platform.world = world = World()
    token = world.tokens[Role.VIEWER]
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as one:
        if by == "session":
            assert one.post("/login", data={"token": token}, headers={"Origin": url}).status_code == 303
        else:
            one.headers["Authorization"] = f"Bearer {token}"
        with one.stream("GET", "/deployments/2/events" if by == "session" else "/api/v1/deployments/2/events") as told:
            signs, until = told.iter_lines(), time.monotonic() + 5
            for _ in range(20):
                assert next(signs) is not None, "it goes on"
            world.platform.members.remove(ROOT, "a-viewer", "shop")
            for _ in signs:
                assert time.monotonic() < until, "it never ends"
    assert world.refusals() == [P.READ]


def test_a_narrow_token_tells_nothing_of_other_projects(running: tuple[str, Swapped]) -> None:
    url, platform = running
    platform.world = world = World()
    for project in ("shop", "till"):
        world.platform.members.add(ROOT, "max", Role.DEVELOPER, project)
    made = world.platform.tokens.create(ROOT, NewToken(name="x", member="max", projects=["shop"]))
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {made.token}"}, trust_env=False) as client:
        assert client.get("/api/v1/whoami").json()["roles"] == {"shop": "developer"}
        for where in ("/api/v1/projects", "/api/v1/deployments", "/api/v1/audit"):
            assert "till" not in client.get(where).text


# --- the command line ---

HERE = {
    "up",
    "stop",
    "status",
    "doctor",
    "keys list",
    "keys rotate",
    "vault setup",
    "vault login",
    "token recover",
    "init",
    "project check",
    "schema",
}
"""What asks no platform: it works with files of this machine, for whoever may read them."""

ABOUT_ONESELF = {"login", "logout", "whoami"}

COMMAND_LINES = [
    ("project add new --repo /srv/new.git", P.PROJECTS),
    ("project list", P.READ),
    ("project show shop", P.READ),
    ("deploy shop --ref develop --no-watch", P.DEPLOY),
    ("deploy shop --ref v1 --no-watch", P.DEPLOY_PRODUCTION),
    ("deployments list shop", P.READ),
    ("deployments list", P.READ),
    ("deployments show 2", P.READ),
    ("deployments logs 2", P.READ),
    ("deployments logs 1 --follow", P.READ),
    ("deployments cancel 2", P.DEPLOY),
    ("deployments cancel 4", P.DEPLOY_PRODUCTION),
    ("env list shop", P.READ),
    ("env show shop develop", P.READ),
    ("env open shop develop", P.READ),
    ("config list shop develop", P.READ),
    ("config list shop production", P.CONFIG_PRODUCTION),
    ("config get shop develop A", P.CONFIG_READ),
    ("config get shop production A", P.CONFIG_READ_PRODUCTION),
    ("config set shop develop B=1", P.CONFIG_WRITE),
    ("config set shop production B=1", P.CONFIG_PRODUCTION),
    ("config unset shop develop A", P.CONFIG_WRITE),
    ("config unset shop production A", P.CONFIG_PRODUCTION),
    ("config explain shop develop", P.READ),
    ("config explain shop production", P.CONFIG_PRODUCTION),
    ("config history shop develop", P.READ),
    ("config history shop production", P.CONFIG_PRODUCTION),
    ("config diff shop develop staging", P.CONFIG_READ),
    ("config diff shop develop production", P.CONFIG_PRODUCTION),
    ("config import shop develop config.env", P.CONFIG_WRITE),
    ("config import shop production config.env", P.CONFIG_PRODUCTION),
    ("config export shop develop", P.CONFIG_READ),
    ("config export shop production", P.CONFIG_READ_PRODUCTION),
    ("config apply shop develop --no-watch", P.DEPLOY),
    ("config apply shop production --no-watch", P.DEPLOY_PRODUCTION),
    ("member add bob --role viewer", P.PLATFORM),
    ("member add bob --role viewer --project shop", P.MEMBERS),
    ("member list", P.PLATFORM),
    ("member list --project shop", P.MEMBERS),
    ("member remove bob", P.PLATFORM),
    ("member remove bob --project shop", P.MEMBERS),
    ("member remove github:acme/ops --group", P.PLATFORM),
    ("member remove github:acme/ops --group --project shop", P.MEMBERS),
    ("token create laptop", P.OWN_TOKENS),
    ("token create robot --role viewer", P.PLATFORM),
    ("token create laptop --for bob", P.PLATFORM),
    ("token list", P.OWN_TOKENS),
    ("token revoke other", P.OWN_TOKENS),
    ("token revoke ci", P.PLATFORM),
    ("audit list", P.READ),
    ("audit keys", P.READ),
    ("audit verify", P.PLATFORM),
    ("audit export", P.PLATFORM),
    ("audit archive segments", P.PLATFORM),
    ("audit list --project shop", P.READ),
]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    made = CommandLine(monkeypatch, capsys, tmp_path)
    (made.folder / "config.env").write_text("B=1\n")
    return made


def test_every_command_is_in_the_table() -> None:
    from importlib import import_module

    import typer

    app = typer.Typer()
    for module in dict.fromkeys(COMMANDS.values()):
        app.add_typer(import_module(f"branchline.cli.{module}").app)
    names = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names |= {f"{name} {one}" for one in inner} if inner else {name}
    tried = {name for name in names for line, _ in COMMAND_LINES if f"{line} ".startswith(f"{name} ")}
    assert names == tried | HERE | ABOUT_ONESELF


@pytest.mark.parametrize(("line", "permission"), COMMAND_LINES, ids=str)
def test_the_command_line_holds_to_the_table(
    running: tuple[str, Swapped], cli: CommandLine, line: str, permission: Permission
) -> None:
    url, platform = running
    for role in PEOPLE:
        platform.world = world = World()
        cli.speak_to(url, world.tokens[role])
        ran = cli(*line.split())
        assert ran.status in {0, 3} or (ran.status, line[:12]) == (2, "config apply"), ran.err
        also = (P.CONFIG_READ,) if line.startswith("config diff") else ()
        held_to(Row("", line, permission, also=also), role, ran.status == 3, world.refusals())
        if ran.status == 3:
            assert "Hint: " in ran.err
