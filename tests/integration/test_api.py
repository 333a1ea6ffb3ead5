"""The API over HTTP: every resource, and one shape for every error."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from branchline.domain.access import Role
from branchline.domain.deployment import State
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke
from branchline.wire import DeploymentView, LogLine, Page, ProjectView
from branchline.wire_audit import AuditLine
from branchline.wire_config import ConfigKeys, ConfigValue
from branchline.wire_people import TokenShown, WhoAmI
from tests.fakes.platform import COMMIT, FakePlatform
from tests.integration.served import Journal, client, eventually, recorded, served

SECRET = "hunter2-is-a-value"


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    with recorded() as made:
        yield made


@pytest.fixture(scope="module")
def running(journal: Journal) -> Iterator[tuple[FakePlatform, str]]:
    platform = FakePlatform()
    with served(platform) as url:
        yield platform, url


@pytest.fixture
def platform(running: tuple[FakePlatform, str]) -> FakePlatform:
    running[0].__init__()  # type: ignore[misc] every test has a new one, behind the same server
    running[0].repositories["shop"] = "https://git.example.com/shop.git"
    running[0].places["shop", "develop"] = Tier.NONPROD
    return running[0]


@pytest.fixture
def api(running: tuple[FakePlatform, str], platform: FakePlatform) -> Iterator[httpx.Client]:
    with client(running[1]) as made:
        yield made


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The problem in an answer, which must be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, object] = response.json()
    assert content["code"] == code
    assert content["status"] == status
    assert content["title"]
    assert {"code", "title", "detail", "hint", "status"} <= set(content)
    return content


# --- resources -------------------------------------------------------------------------------------------------------


def test_whoami(api: httpx.Client) -> None:
    me = WhoAmI.model_validate(api.get("/api/v1/whoami").json())
    assert (me.name, me.role, me.proof) == ("admin", Role.ADMIN, "token admin")


def test_projects_are_added_listed_and_shown(api: httpx.Client) -> None:
    added = api.post("/api/v1/projects", json={"name": "billing", "repository": "https://git.example.com/b.git"})
    assert added.status_code == 201
    assert added.headers["location"] == "/api/v1/projects/billing"
    assert [one["name"] for one in api.get("/api/v1/projects").json()] == ["billing", "shop"]
    shown = ProjectView.model_validate(api.get("/api/v1/projects/shop").json())
    assert [one.name for one in shown.environments] == ["develop"]
    problem(api.post("/api/v1/projects", json={"name": "shop", "repository": "/srv/x.git"}), 409, "project_exists")


def test_environments(api: httpx.Client, platform: FakePlatform) -> None:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    platform.finish(number, State.SUCCEEDED)
    assert [one["name"] for one in api.get("/api/v1/projects/shop/environments").json()] == ["develop"]
    one = api.get("/api/v1/projects/shop/environments/develop").json()
    assert (one["live"]["id"], one["running"], one["queued"]) == (number, None, 0)
    problem(api.get("/api/v1/projects/shop/environments/nope"), 404, "unknown_environment")


def test_a_deployment_is_asked_for_shown_and_cancelled(api: httpx.Client) -> None:
    asked = api.post("/api/v1/projects/shop/deployments", json={"ref": "develop", "reason": "ünï ☂", "trigger": "cli"})
    assert asked.status_code == 201
    view = DeploymentView.model_validate(asked.json())
    assert asked.headers["location"] == f"/api/v1/deployments/{view.id}"
    assert (view.state, view.environment, view.reason, view.trigger) == (State.QUEUED, "develop", "ünï ☂", "cli")
    assert api.get(f"/api/v1/deployments/{view.id}").json() == asked.json()
    cancelled = api.post(f"/api/v1/deployments/{view.id}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["cancel_requested"] is True


def test_deployments_come_in_pages(api: httpx.Client, platform: FakePlatform) -> None:
    for number in range(5):
        platform.deployed("shop", "develop" if number else "main", "refs/heads/x", COMMIT)
    page = Page.model_validate(api.get("/api/v1/deployments", params={"limit": 3}).json())
    assert [one.id for one in page.items] == [5, 4, 3]
    rest = Page.model_validate(api.get("/api/v1/deployments", params={"limit": 3, "before": page.next}).json())
    assert ([one.id for one in rest.items], rest.next) == ([2, 1], None)
    main = api.get("/api/v1/deployments", params={"project": "shop", "environment": "main"}).json()
    assert [one["id"] for one in main["items"]] == [1]
    problem(api.get("/api/v1/deployments", params={"project": "nope"}), 404, "unknown_project")


def test_a_log_as_lines_and_as_text(api: httpx.Client, platform: FakePlatform) -> None:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    platform.say(number, "build", *(f"line {count} ☂" for count in range(3000)))
    lines = [LogLine.model_validate(one) for one in api.get(f"/api/v1/deployments/{number}/log").json()]
    assert (len(lines), lines[0].text) == (1000, "line 0 ☂")
    more = api.get(f"/api/v1/deployments/{number}/log", params={"after": lines[-1].seq, "limit": 1}).json()
    assert more[0]["text"] == "line 1000 ☂"
    text = api.get(f"/api/v1/deployments/{number}/log", headers={"Accept": "text/plain"})
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(text.text.splitlines()) == 3000
    assert text.text.splitlines()[-1].endswith("build line 2999 ☂")
    problem(api.get("/api/v1/deployments/99/log", headers={"Accept": "text/plain"}), 404, "unknown_deployment")


def test_config(api: httpx.Client) -> None:
    here = "/api/v1/projects/shop/environments/develop/config"
    assert api.put(f"{here}/keys/TOKEN", json={"value": SECRET}).json()["version"] == 1
    assert api.patch(here, json={"changes": {"A": "1", "B": ""}, "expected_version": 1}).json()["version"] == 2
    keys = ConfigKeys.model_validate(api.get(here).json())
    assert (list(keys.keys), keys.versions) == (["A", "B", "TOKEN"], {"develop": 2})
    got = api.get(f"{here}/keys/TOKEN")
    assert ConfigValue.model_validate(got.json()).value == SECRET
    assert got.headers["cache-control"] == "no-store"
    problem(api.put(f"{here}/keys/TOKEN", json={"value": "x", "expected_version": 1}), 409, "config_changed")
    assert api.delete(f"{here}/keys/A", params={"expected_version": 2}).json()["version"] == 3
    problem(api.get(f"{here}/keys/A"), 404, "unknown_key")
    assert SECRET not in problem(api.put(f"{here}/keys/no-key", json={"value": SECRET}), 422, "bad_key").values()


def test_productions_config_is_written_and_never_read(api: httpx.Client, platform: FakePlatform) -> None:
    platform.places["shop", "production"] = Tier.PRODUCTION
    here = "/api/v1/projects/shop/environments/production/config"
    assert api.put(f"{here}/keys/TOKEN", json={"value": SECRET}).status_code == 200
    assert SECRET not in problem(api.get(f"{here}/keys/TOKEN"), 403, "write_only").values()


def test_tokens(api: httpx.Client, running: tuple[FakePlatform, str]) -> None:
    made = api.post("/api/v1/tokens", json={"name": "ci", "role": "developer"})
    assert made.status_code == 201
    token = TokenShown.model_validate(made.json()).token
    assert token not in api.get("/api/v1/tokens").text
    bearer = {"Authorization": f"bearer  {token}"}
    with client(running[1], None) as other:
        assert other.get("/api/v1/whoami", headers=bearer).json()["role"] == "developer"
        assert api.delete("/api/v1/tokens/ci").status_code == 204
        problem(other.get("/api/v1/whoami", headers=bearer), 401, "unauthenticated")
    problem(api.delete("/api/v1/tokens/ci"), 404, "not_found")


def test_the_register(api: httpx.Client, platform: FakePlatform) -> None:
    platform.register.append(
        AuditLine.model_validate(
            {"id": 7, "at": "2030-01-01T00:00:00Z", "kind": "project.added", "actor": "ada", "project": "shop"}
            | {"environment": None, "deployment": None, "detail": {"a": [1]}}
        )
    )
    assert [one["id"] for one in api.get("/api/v1/audit").json()] == [7]
    assert api.get("/api/v1/audit", params={"project": "zoo"}).json() == []
    assert api.get("/api/v1/audit", params={"before": 7}).json() == []


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nothing",
        "/api/v1/projects/",
        "/api/v1/projects/../../etc/passwd",
        "/api/v1/projects/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/v1/projects/a%2Fb",
        "/api/v1/projects/%00",
        "/api/v1/projects/sh%C3%B6p",
        "/api/v1/projects/%FF%FE",
        "/api/v1/projects/" + "x" * 300,
        "/api/v1/projects/" + "x" * 3000,
        "/api/v1/deployments/" + "9" * 30,
        "/api/v1/deployments/0",
        "/api/v1/deployments/one",
        "/api/v1/deployments?project=%00",
        "/api/v1/deployments?limit=0",
        "/api/v1/deployments?before=" + "9" * 30,
        "/api/v1/projects/shop/environments/develop/config/keys/" + "K" * 300,
        "/%E2%98%82/%F0%9F%98%80",
        "//",
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
    ],
)
def test_strange_paths_are_problems(api: httpx.Client, path: str) -> None:
    # raw, so that no client tidies the path up
    host, port = api.base_url.host, api.base_url.port
    with socket.create_connection((host, port or 0), timeout=10) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bl_admin\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in {404, 422}, received
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] in {"unknown_path", "unknown_project", "bad_request", "bad_key"}


def test_methods_that_a_path_does_not_know(api: httpx.Client) -> None:
    for method, path in (("DELETE", "/api/v1/projects"), ("POST", "/api/v1/whoami"), ("PUT", "/healthz")):
        response = api.request(method, path)
        problem(response, 405, "method_not_allowed")
        assert response.headers["allow"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "`ref` is missing"),
        ({"ref": 7}, "`ref` must be text"),
        ({"ref": "x" * 401}, "`ref` must have at most 400 characters"),
        ({"ref": "a\x00b"}, "`ref` does not have the form"),
        ({"ref": "develop", "commit": "xyz"}, "`commit` does not have the form"),
        ({"ref": "develop", "trigger": "magic"}, "`trigger` must be one of"),
        ({"ref": "develop", "rev": "x"}, "`rev` is not known here"),
        ([], "the body"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(api: httpx.Client, body: object, words: str) -> None:
    assert words in str(problem(api.post("/api/v1/projects/shop/deployments", json=body), 422, "bad_request")["title"])


def test_several_faults_are_all_told(api: httpx.Client) -> None:
    found = problem(api.post("/api/v1/projects", json={"nam": "x"}), 422, "bad_request")
    assert found["detail"] == "`name` is missing; `repository` is missing; `nam` is not known here"


@pytest.mark.parametrize(
    "body",
    [
        {"changes": {"KEY": [SECRET]}},
        {"changes": [SECRET]},
        {"changes": SECRET},
        {"changes": {"KEY": {"value": SECRET}}},
        {"changes": {"KEY": "x"}, "expected_version": SECRET},
        {"changes": {"KEY": "x"}, "expected_version": 2**31},
        {"changes": {"KEY": "x"}, "expected_version": -1},
        {"changes": {}, f"{SECRET} with spaces": SECRET},
        SECRET,
    ],
)
def test_values_are_never_repeated(api: httpx.Client, body: object) -> None:
    response = api.patch("/api/v1/projects/shop/environments/develop/config", json=body)
    problem(response, 422, "bad_request")
    assert "hunter2" not in response.text


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"ref": "develop",}', b"[" * 200_000, b'{"ref": NaN'])
def test_malformed_bodies(api: httpx.Client, body: bytes) -> None:
    response = api.post("/api/v1/projects/shop/deployments", content=body, headers={"Content-Type": "application/json"})
    problem(response, 400, "malformed_body")


def test_lone_surrogates_are_no_text(api: httpx.Client) -> None:
    content = b'{"ref": "\\ud800"}'
    headers = {"Content-Type": "application/json"}
    problem(api.post("/api/v1/projects/shop/deployments", content=content, headers=headers), 422, "bad_request")


def test_bodies_beyond_a_mebibyte_are_refused(api: httpx.Client) -> None:
    here = "/api/v1/projects/shop/environments/develop/config"
    for size in (1_100_000, 9_000_000):
        problem(api.patch(here, content=b"x" * size), 413, "body_too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 50_000

    problem(api.patch(here, content=chunks(), headers={"Content-Type": "application/json"}), 413, "body_too_large")
    assert api.get("/api/v1/whoami").status_code == 200


def test_refused(running: tuple[FakePlatform, str], platform: FakePlatform) -> None:
    with client(running[1], Role.VIEWER) as viewer:
        found = problem(viewer.post("/api/v1/projects/shop/deployments", json={"ref": "develop"}), 403, "refused")
    assert "viewer" in str(found["hint"])


def test_a_platform_in_trouble(api: httpx.Client, platform: FakePlatform) -> None:
    platform.faults["projects.list"] = PlatformBroke("The database does not answer.", code="store_unreachable")
    response = api.get("/api/v1/projects")
    problem(response, 503, "store_unreachable")
    assert response.headers["retry-after"]


def test_unexpected_exceptions_are_told_to_the_log_alone(
    api: httpx.Client, platform: FakePlatform, journal: Journal
) -> None:
    platform.faults["projects.list"] = ZeroDivisionError("a division")
    journal.clear()
    response = api.get("/api/v1/projects")
    found = problem(response, 500, "internal")
    assert "ivision" not in response.text
    eventually(lambda: len(journal.lines) == 2)
    incident, request = journal.lines
    assert incident["incident"] == found["incident"]
    assert incident["request"] == request["request"] == response.headers["x-request-id"]
    assert "ZeroDivisionError: a division" in incident["exception"]
    assert "in list" in incident["exception"]
    assert (request["status"], request["problem"], request["actor"]) == (500, "internal", "admin")


def test_the_log_has_a_line_for_each_request_and_no_secrets(
    api: httpx.Client, platform: FakePlatform, journal: Journal
) -> None:
    journal.clear()
    config = "/api/v1/projects/shop/environments/develop/config"
    api.put(f"{config}/keys/TOKEN", json={"value": SECRET}, params={"q": SECRET})
    api.patch(config, json={"changes": SECRET})
    platform.faults["config.change"] = RuntimeError("an accident")
    api.put(f"{config}/keys/TOKEN", json={"value": SECRET})
    eventually(lambda: sum(line["event"] == "request" for line in journal.lines) == 3)
    assert "hunter2" not in journal.getvalue()
    assert "bl_admin" not in journal.getvalue()
    line = journal.lines[0]
    assert (line["method"], line["status"], line["actor"]) == ("PUT", 200, "admin")
    assert line["route"] == "/api/v1/projects/{project}/environments/{environment}/config/keys/{key}"
    assert 0 < line["ms"] < 10_000


def test_headers_that_are_on_every_answer(api: httpx.Client) -> None:
    for path in ("/api/v1/whoami", "/api/v1/nothing", "/login", "/healthz", "/static/branchline.css", "/nothing"):
        headers = api.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert len(headers["x-request-id"]) >= 8
        assert "server" not in headers
    assert api.get("/healthz", headers={"X-Request-Id": "from-a-proxy-1"}).headers["x-request-id"] == "from-a-proxy-1"
    assert api.get("/healthz", headers={"X-Request-Id": "x" * 999}).headers["x-request-id"] != "x" * 999
