"""Who gets in where: every route there is, the open ones by name, and what these tell."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from branchline.domain.access import Role
from branchline.domain.audit import Kind
from branchline.domain.deployment import State
from branchline.domain.errors import PlatformBroke
from branchline.server.app import Server
from branchline.server.auth import OPEN_ROUTES, current_actor
from branchline.server.dashboard.login import same_origin, visitor
from branchline.server.source import networks
from tests.fakes.platform import COMMIT, FakePlatform
from tests.integration.served import client, recorded, served


@pytest.fixture
def platform() -> FakePlatform:
    platform = FakePlatform()
    platform.repositories["shop"] = "/srv/shop.git"
    return platform


@pytest.fixture
def url(platform: FakePlatform) -> Iterator[str]:
    with recorded(), served(platform) as url:
        yield url


@pytest.fixture(scope="module")
def lasting_url() -> Iterator[str]:
    """One server for all cases of a test that changes nothing in it."""
    platform = FakePlatform()
    with recorded(), served(platform, trusted=networks("127.0.0.1, ::1")) as url:
        yield url
        assert not platform.repositories
        assert set(platform.known_tokens) == set(Role)


def all_routes(application: FastAPI) -> list[APIRoute]:
    """Every route, of every router."""
    found = [context.original_route for context in iter_route_contexts(application.routes)]
    assert all(isinstance(route, APIRoute) for route in found), "a route of an unknown kind passes no dependency"
    return [route for route in found if isinstance(route, APIRoute)]


def dependencies(route: APIRoute) -> set[Any]:
    """What runs before a route, at any depth."""
    waiting, seen = [route.dependant], set()
    while waiting:
        one = waiting.pop()
        seen.add(one.call)
        waiting += one.dependencies
    return seen


ROUTES = all_routes(Server(FakePlatform()).application)


HTML = {"Accept": "text/html"}

OPEN_ANSWERS = {
    ("POST", "/login"): 403,
    ("POST", "/api/v1/device"): 422,
    ("POST", "/api/v1/device/token"): 422,
    ("GET", "/login/{provider}"): 404,
    ("GET", "/login/{provider}/callback"): 404,
}
"""What open routes answer to whoever asks amiss, where it is not 200."""


def test_there_are_routes_to_walk() -> None:
    paths = {route.path for route in ROUTES}
    assert paths >= OPEN_ROUTES
    assert {"/api/v1/projects", "/api/v1/deployments/{id}/events", "/deployments/{id}", "/"} <= paths
    assert len(ROUTES) > 30


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{sorted(route.methods)[0]}-{route.path}")
def test_every_route_knows_its_actor_or_is_open(route: APIRoute) -> None:
    before = dependencies(route)
    if route.path.startswith("/api/v1/"):
        assert (current_actor in before) == (route.path not in OPEN_ROUTES)
        assert visitor not in before, "a cookie counts for nothing in the API"
        # the operation that is named is one of the platform's: it passes the gate by itself
        part, operation = str(route.operation_id).split(".")[:2]
        assert callable(getattr(getattr(FakePlatform(), part), operation))
    elif route.path not in OPEN_ROUTES:
        assert visitor in before
    if "POST" in route.methods and not route.path.startswith("/api/v1/"):
        assert same_origin in before


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{sorted(route.methods)[0]}-{route.path}")
def test_nobody_gets_in_without_a_login(route: APIRoute, lasting_url: str) -> None:
    path = route.path
    for name in ("project", "environment", "key", "name"):
        path = path.replace(f"{{{name}}}", "shop")
    path = path.replace("{id}", "1").replace("{file}", "icon.svg").replace("{provider}", "oidc")
    method = sorted(route.methods)[0]
    # each route as if from an address of its own: too many wrong tokens from one are refused otherwise
    source = {"X-Forwarded-For": f"2001:db8:0:{ROUTES.index(route):x}::1"}
    body = {"name": "x", "repository": "/x", "ref": "x", "role": "admin", "value": "x", "changes": {"A": "x"}}
    with client(lasting_url, None) as nobody:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "branchline_session=wrong"}):
            answer = nobody.request(method, path, headers=headers | source, json=body if method != "GET" else None)
            if route.path in OPEN_ROUTES:
                # logging in is tried by other tests; here it lacks the origin, the right body, or a provider
                assert answer.status_code == OPEN_ANSWERS.get((method, route.path), 200)
            elif path.startswith("/api/v1/"):
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"
            else:
                assert answer.status_code in {303, 403}
                assert answer.status_code == 403 or answer.headers["location"].startswith("/login")


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "bl_admin", "Bearer a b", "Bearer \x01", "Bearer " + "x" * 2000]
)
def test_headers_that_are_no_token(lasting_url: str, header: str) -> None:
    with client(lasting_url, None) as nobody:
        answer = nobody.get("/api/v1/whoami", headers={"Authorization": header})
        assert answer.status_code in {400, 401}
        if answer.status_code == 401:
            assert answer.json()["hint"]


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {}], ids=str)
def test_no_form_of_another_site_gets_through(lasting_url: str, headers: dict[str, str]) -> None:
    forms = [route for route in ROUTES if "POST" in route.methods and not route.path.startswith("/api/")]
    assert len(forms) >= 6
    with client(lasting_url, None) as browser:
        assert browser.post("/login", data={"token": "bl_admin"}, headers={"Origin": lasting_url}).status_code == 303
        for route in forms:
            path = route.path.replace("{project}", "shop").replace("{id}", "1")
            answer = browser.post(path, data={"token": "bl_viewer", "ref": "develop"}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "other_site"), path
            assert "set-cookie" not in answer.headers
        assert browser.get("/account").status_code == 200, "and nobody was logged out"


def test_nothing_but_forms_changes_anything_in_the_dashboard() -> None:
    for route in ROUTES:
        if not route.path.startswith("/api/"):
            assert route.methods <= {"GET", "HEAD", "POST"}


def test_tokens_cannot_be_guessed_for_long(platform: FakePlatform) -> None:
    with recorded() as journal, served(platform, trusted=networks("127.0.0.1")) as url, client(url, None) as nobody:

        def ask(token: str, source: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": source}
            return nobody.get("/api/v1/projects", headers=headers)

        assert ask("bl_viewer", "192.0.2.1").status_code == 200
        answers = [ask(f"bl_guess-{number}", "192.0.2.1") for number in range(25)]
        assert [one.status_code for one in answers] == [401] * 20 + [429] * 5
        assert answers[-1].headers["content-type"] == "application/problem+json"
        assert answers[-1].json()["code"] == "too_many_attempts"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert ask("bl_admin", "192.0.2.1").status_code == 429, "a guess that is right is not told"
        assert ask("bl_viewer", "192.0.2.1").status_code == 200, "who was let in before is not locked out"
        assert ask("bl_admin", "192.0.2.2").status_code == 200
        form = {"token": "bl_guess"}
        page = nobody.post("/login", data=form, headers={"Origin": url, "X-Forwarded-For": "192.0.2.1", **HTML})
        assert (page.status_code, page.headers["retry-after"]) == (429, page.headers["retry-after"])
        assert "too many attempts" in page.text
        assert [one["source"] for one in journal.lines if one.get("status") == 429][-1] == "192.0.2.1"
    told = [event for _, event in platform.store.tables.events if event.kind is Kind.LOGIN_FAILED]
    assert [(one.source, one.detail["method"]) for one in told] == [("192.0.2.1", "token")]
    assert "guess" not in str(told) + journal.getvalue(), "what was tried is written down nowhere"


def test_requests_without_a_token_are_no_attempts(url: str) -> None:
    with client(url, None) as nobody:
        assert {nobody.get("/api/v1/whoami").status_code for _ in range(30)} == {401}


def test_the_database_away_is_not_a_wrong_token(url: str, platform: FakePlatform) -> None:
    platform.faults["tokens.authenticate"] = PlatformBroke("The database does not answer.", code="store_unreachable")
    with client(url) as api:
        assert api.get("/api/v1/whoami").json()["code"] == "store_unreachable"


def test_health(url: str, platform: FakePlatform) -> None:
    with client(url, None) as nobody:
        well = nobody.get("/healthz")
        assert (well.status_code, well.json()) == (200, {"status": "ok", "parts": {"database": "ok"}})
        assert nobody.head("/healthz").status_code == 200
        platform.parts = {"database": "The database does not answer.", "config": "ok"}
        ill = nobody.get("/healthz")
        assert (ill.status_code, ill.json()["status"]) == (503, "unwell")
        assert ill.json()["parts"]["config"] == "ok"
        platform.faults["health"] = PlatformBroke("Nothing answers.")
        assert nobody.get("/healthz").json()["parts"] == {"database": "Nothing answers."}


def test_metrics(url: str, platform: FakePlatform) -> None:
    for state in (State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.RUNNING, State.QUEUED):
        platform.change(platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id, state=state)
    with client(url) as api:
        api.get("/api/v1/deployments/1")
        api.get("/api/v1/deployments/999")
        api.get("/no/such/path")
        answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = set(answer.text.splitlines())
    assert {
        'branchline_deployments_total{state="succeeded",tier="nonprod"} 2.0',
        'branchline_deployments_total{state="failed",tier="nonprod"} 1.0',
        'branchline_deployments_total{state="failed",tier="production"} 0.0',
        'branchline_deployments_running{tier="nonprod"} 1.0',
        'branchline_deployments_queued{tier="nonprod"} 1.0',
        'branchline_deployments_queued{tier="production"} 0.0',
        'branchline_stage_seconds_count{stage="build"} 3.0',
        'branchline_stage_seconds_sum{stage="build"} 12.5',
        "branchline_database_up 1.0",
        'branchline_http_requests_total{method="GET",route="/api/v1/deployments/{id}",status="200"} 1.0',
        'branchline_http_requests_total{method="GET",route="/api/v1/deployments/{id}",status="404"} 1.0',
        'branchline_http_requests_total{method="GET",route="(none)",status="404"} 1.0',
        'branchline_http_request_seconds_count{route="/api/v1/deployments/{id}"} 2.0',
    } <= lines
    assert any(line.startswith("branchline_build_info{") for line in lines)
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


def test_metrics_without_a_database(url: str, platform: FakePlatform) -> None:
    platform.faults["metrics"] = PlatformBroke("The database does not answer.")
    with client(url, None) as nobody:
        answer = nobody.get("/metrics")
    assert answer.status_code == 200
    assert "branchline_database_up 0.0" in answer.text
    assert "branchline_deployments_total{" not in answer.text


def test_the_description(url: str) -> None:
    with client(url, None) as nobody:
        description = nobody.get("/api/openapi.json").json()
    assert description["info"]["title"] == "Branchline"
    operations = {
        (method.upper(), path): operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    in_api = {
        (method, route.path_format) for route in ROUTES for method in route.methods if route.path[:8] == "/api/v1/"
    }
    assert set(operations) == in_api
    for (_, path), operation in operations.items():
        assert operation["summary"]
        assert operation.get("security") == (None if path in OPEN_ROUTES else [{"token": []}])
        for status in ("401", "403", "404", "422", "503"):
            assert operation["responses"][status]["$ref"].endswith(f"Problem{status}")
    assert description["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)
    text = str(description)
    assert "HTTPValidationError" not in text
    for reference in {word for word in text.split("'") if word.startswith("#/components/")}:
        found: Any = description
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_a_viewer_reads_and_changes_nothing(url: str) -> None:
    with client(url, Role.VIEWER) as viewer:
        assert viewer.get("/api/v1/projects").status_code == 200
        for answer in (
            viewer.post("/api/v1/projects", json={"name": "x", "repository": "/srv/x.git"}),
            viewer.post("/api/v1/tokens", json={"name": "x", "role": "admin"}),
            viewer.get("/api/v1/tokens"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "refused")


def test_many_at_once(url: str) -> None:
    with httpx.Client(base_url=url, limits=httpx.Limits(max_connections=50), trust_env=False, timeout=20) as many:

        def ask(_: int) -> int:
            return many.get("/api/v1/projects", headers={"Authorization": "Bearer bl_viewer"}).status_code

        with ThreadPoolExecutor(50) as pool:
            assert set(pool.map(ask, range(500))) == {200}
