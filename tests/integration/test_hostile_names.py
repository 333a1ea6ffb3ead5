"""Texts that are meant for a shell, a query, a path, a header, a page or an option, wherever a user names anything."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from branchline.domain.access import Role
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.openbao import OpenBao
from branchline.store.database import SqlStore
from tests.integration.real_server import Place, real_server

pytestmark = pytest.mark.stack

CANARY = "branchline-canary"

HOSTILE = {
    "a query": "x'; DROP TABLE project; --",
    "a query with quotes": 'x"; DROP SCHEMA public CASCADE; --',
    "a shell": f"$(touch /tmp/{CANARY})",
    "a shell with backticks": f"`touch /tmp/{CANARY}`",
    "a shell with a semicolon": f"x; touch /tmp/{CANARY}",
    "a shell with a pipe": f"x | tee /tmp/{CANARY}",
    "an option of git": f"--upload-pack=touch /tmp/{CANARY}",
    "a short option": "-c",
    "a path upwards": f"../../../../../../tmp/{CANARY}",
    "two dots": "..",
    "an absolute path": "/etc/passwd",
    "an escaped path": "%2e%2e%2f%2e%2e%2fetc",
    "a path for another system": "..\\..\\x",
    "a header": "x\r\nX-Injected: yes",
    "a line of a log": 'x\n{"event": "request", "actor": "root"}',
    "a terminal": "\x1b]0;owned\x07\x1b[2J",
    "a page": "<script>alert(1)</script>",
    "an attribute": '" onmouseover=alert(1) x="',
    "a template": "{{ 7 * 7 }}{% raw %}",
    "a format": "%s%n{0.__class__}",
    "another protocol": f"ext::sh -c touch% /tmp/{CANARY}",
    "a direction": "\u202egnp.exe",
    "nothing": "",
    "a space": " ",
    "much": "x" * 5000,
}


@pytest.fixture(scope="module")
def place(settings: Settings, home_layout: Layout, sql_store: SqlStore, openbao: OpenBao) -> Iterator[Place]:
    with real_server(settings, sql_store, "hostile") as made:
        yield made
        made.child.send_signal(signal.SIGSTOP)  # its log is looked at before it ends
        lines = [json.loads(line) for line in made.child.log.read_text().splitlines()]
        assert {line.get("actor") for line in lines} <= {None, *(token[-12:] for token in made.tokens.values())}
        assert not [line for line in lines if line["level"] == "error"]
        made.child.send_signal(signal.SIGCONT)


@pytest.fixture
def api(place: Place) -> Iterator[httpx.Client]:
    with place.client() as made:
        yield made
    assert not Path("/tmp", CANARY).exists()


@pytest.fixture(scope="module")
def browser(place: Place) -> Iterator[httpx.Client]:
    """One that is logged in: nobody may log in too often with the same token."""
    with httpx.Client(base_url=place.url, trust_env=False, timeout=30) as made:
        made.headers["Sec-Fetch-Site"] = "same-origin"
        assert made.post("/login", data={"token": place.tokens[Role.ADMIN]}).status_code == 303
        yield made


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def hostile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def harmless(answer: httpx.Response) -> bool:
    """Whether it was taken. Where it was not, it was refused in words; in no case is anything broken."""
    assert answer.status_code < 500, answer.text
    assert "x-injected" not in answer.headers
    if answer.status_code >= 400:
        problem = answer.json()
        assert problem["code"]
        assert problem["title"]
        assert "\x1b" not in problem["title"] + problem["hint"]
    return answer.status_code < 400


def test_as_the_name_of_a_project(place: Place, api: httpx.Client, hostile: str) -> None:
    assert not harmless(api.post("/projects", json={"name": hostile, "repository": str(place.repository)}))
    assert [one["name"] for one in api.get("/projects").json()].count(place.project) == 1


def test_as_a_repository(place: Place, api: httpx.Client, hostile: str) -> None:
    """A path may be said; nobody can make git do anything else by it."""
    name = f"h{uuid4().hex[:8]}"
    taken = harmless(api.post("/projects", json={"name": name, "repository": hostile}))
    assert taken == hostile.startswith("/")
    if taken:
        assert not harmless(api.post(f"/projects/{name}/deployments", json={"ref": "develop"}))


def test_as_a_ref(place: Place, api: httpx.Client, hostile: str) -> None:
    assert not harmless(api.post(f"/projects/{place.project}/deployments", json={"ref": hostile}))
    asked = {"ref": "develop", "commit": hostile}
    assert not harmless(api.post(f"/projects/{place.project}/deployments", json=asked))


def test_as_a_reason(place: Place, api: httpx.Client, browser: httpx.Client, hostile: str) -> None:
    """Which may be any text: it is kept as it is, and shown as text."""
    asked = api.post(f"/projects/{place.project}/deployments", json={"ref": "develop", "reason": hostile})
    if not harmless(asked):
        assert len(hostile) > 500
        return
    number = asked.json()["id"]
    assert api.get(f"/deployments/{number}").json()["reason"] == hostile
    for page in (f"/deployments/{number}", f"/projects/{place.project}", "/"):
        answer = browser.get(page, headers={"Accept": "text/html"})
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert '" onmouseover=' not in answer.text
        assert "49{%" not in answer.text


@pytest.mark.parametrize("what", ["", "/config", "/config/values", "/config/history", "/config/diff/develop"])
def test_as_an_environment(place: Place, api: httpx.Client, hostile: str, what: str) -> None:
    harmless(api.get(f"/projects/{place.project}/environments/{quote(hostile, safe='')}{what}"))
    harmless(api.get(f"/projects/{quote(hostile, safe='')}/environments/develop{what}"))


def test_as_a_key(place: Place, api: httpx.Client, hostile: str) -> None:
    config = f"/projects/{place.project}/environments/develop/config"
    assert not harmless(api.patch(config, json={"changes": {hostile: "x"}}))
    assert not harmless(api.patch(config, json={"hidden": [hostile]}))
    if hostile and "/" not in quote(hostile, safe="") and hostile != "..":
        assert not harmless(api.put(f"{config}/keys/{quote(hostile, safe='')}", json={"value": "x"}))
    harmless(api.get(f"{config}/explanation", params={"key": hostile}))


def test_as_a_value(place: Place, api: httpx.Client, hostile: str) -> None:
    """Which may be any text that a process can be given."""
    config = f"/projects/{place.project}/environments/develop/config"
    if harmless(api.patch(config, json={"changes": {"HOSTILE": hostile}})):
        assert api.get(f"{config}/keys/HOSTILE").json()["value"] == hostile


def test_as_the_name_of_a_token(api: httpx.Client, hostile: str) -> None:
    if harmless(api.post("/tokens", json={"name": hostile, "role": "viewer"})):
        assert hostile in [one["name"] for one in api.get("/tokens").json()]
        assert harmless(api.delete(f"/tokens/{quote(hostile, safe='')}")), "what can be made must be revocable"
    assert hostile not in [one["name"] for one in api.get("/tokens").json()]


@pytest.mark.parametrize("group", [False, True])
def test_as_the_name_of_a_member(api: httpx.Client, hostile: str, *, group: bool) -> None:
    if harmless(api.post("/members", json={"name": hostile, "role": "viewer", "group": group})):
        assert hostile in [one["name"] for one in api.get("/members").json()]
        there = f"/{'groups' if group else 'members'}/{quote(hostile, safe='')}"
        assert harmless(api.delete(there)), "who can be let in must be removable"


def test_as_a_filter(api: httpx.Client, hostile: str) -> None:
    for path in ("/audit", "/deployments"):
        harmless(api.get(path, params={"project": hostile}))
    harmless(api.get("/deployments", params={"environment": hostile}))


def test_as_a_header(place: Place, hostile: str) -> None:
    said = hostile.replace("\r", " ").replace("\n", " ").strip().encode("utf-8", "replace")
    names = ("X-Request-Id", "Last-Event-ID", "Authorization", "X-Forwarded-For", "Origin", "HX-Current-URL", "Accept")
    for name in names:
        headers = {name.encode(): said.replace(b"\x1b", b" ").replace(b"\x07", b" ").strip()}
        for path in ("/api/v1/projects", f"/api/v1/deployments/{place.deployment}/events", "/", "/login"):
            harmless(httpx.get(f"{place.url}{path}", headers=headers, trust_env=False))


def test_as_the_place_to_go_after_the_login(place: Place, hostile: str) -> None:
    with httpx.Client(base_url=place.url, trust_env=False, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        sent = browser.post("/login", data={"token": place.tokens[Role.DEVELOPER], "then": hostile})
    assert sent.status_code == 303
    there = sent.headers["location"]
    assert there.startswith("/")
    assert not there.startswith(("//", "/\\"))
