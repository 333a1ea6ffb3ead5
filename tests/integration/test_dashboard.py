"""The dashboard over HTTP: logging in, what other sites cannot do, and what the pages say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from branchline.domain.access import Role
from branchline.domain.audit import Kind
from branchline.domain.changes import FileChange
from branchline.domain.deployment import State
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.pipeline import Stage, StageState
from branchline.wire import FailureView
from branchline.wire_audit import AuditLine
from branchline.wire_changes import ChangesView, CommitsView, CommitView, LayerChangesView, MigrationView
from tests.fakes.platform import COMMIT, FakePlatform
from tests.integration.served import recorded, served

COOKIE = "branchline_session"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


@pytest.fixture
def platform() -> FakePlatform:
    platform = FakePlatform()
    platform.repositories["shop"] = "https://git.example.com/shop.git"
    return platform


@pytest.fixture
def url(platform: FakePlatform) -> Iterator[str]:
    with recorded(), served(platform) as url:
        yield url


@pytest.fixture
def browser(url: str) -> Iterator[httpx.Client]:
    """A client that behaves as a browser does on our own pages, and is not logged in."""
    headers = {"Origin": url, "Accept": "text/html,*/*"}
    with httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False) as made:
        yield made


def log_in(browser: httpx.Client, role: Role = Role.ADMIN) -> httpx.Response:
    return browser.post("/login", data={"token": f"bl_{role}"})


# --- logging in and out ----------------------------------------------------------------------------------------------


def test_a_token_begins_a_session(browser: httpx.Client) -> None:
    assert browser.get("/").headers["location"] == "/login"
    answer = log_in(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "bl_admin" not in cookie
    assert "secure" not in cookie
    page = browser.get("/")
    assert page.status_code == 200
    assert "shop" in page.text


def test_behind_https_the_cookie_stays_there(browser: httpx.Client) -> None:
    answer = browser.post("/login", data={"token": "bl_admin"}, headers={"X-Forwarded-Proto": "https"})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_a_wrong_token_is_told_on_the_page(browser: httpx.Client) -> None:
    for token in ("wrong", "", "☂", "x" * 5000, "a\nb"):
        answer = browser.post("/login", data={"token": token, "then": "/projects/shop"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text
        assert 'value="/projects/shop"' in answer.text
        assert not token or token not in answer.text.replace("a\nb", "")


def test_the_way_back_after_the_login(browser: httpx.Client) -> None:
    sent = browser.get("/deployments/7").headers["location"]
    assert sent == "/login?then=/deployments/7"
    assert 'value="/deployments/7"' in browser.get(sent).text
    answer = browser.post("/login", data={"token": "bl_admin", "then": "/deployments/7"})
    assert answer.headers["location"] == "/deployments/7"


@pytest.mark.parametrize(
    "then", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/\t/evil", ""]
)
def test_the_way_back_never_leads_elsewhere(browser: httpx.Client, then: str) -> None:
    assert browser.post("/login", data={"token": "bl_admin", "then": then}).headers["location"] == "/"
    assert 'name="then" value="/"' in browser.get("/login", params={"then": then}).text


def test_logging_out(browser: httpx.Client) -> None:
    log_in(browser)
    answer = browser.post("/logout")
    assert answer.headers["location"] == "/login"
    assert browser.get("/").headers["location"] == "/login"


def test_a_revoked_token_ends_its_sessions(browser: httpx.Client, platform: FakePlatform) -> None:
    log_in(browser)
    del platform.known_tokens["admin"]
    assert browser.get("/").headers["location"] == "/login"
    part = browser.get("/", headers={"HX-Request": "true", "HX-Current-URL": "http://x/projects/shop"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login?then=/projects/shop")


def test_a_login_survives_a_restart(platform: FakePlatform) -> None:
    with recorded():
        with served(platform) as first, httpx.Client(trust_env=False) as browser:
            cookie = browser.post(f"{first}/login", data={"token": "bl_admin"}, headers={"Origin": first}).cookies[
                COOKIE
            ]
        with served(platform) as second, httpx.Client(trust_env=False, cookies={COOKIE: cookie}) as browser:
            assert browser.get(f"{second}/").status_code == 200


# --- other sites -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:1"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_forms_of_other_sites_are_refused(
    browser: httpx.Client, platform: FakePlatform, headers: dict[str, str]
) -> None:
    log_in(browser)
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    for path in (f"/deployments/{number}/cancel", "/projects/shop/deployments", "/login", "/logout"):
        answer = browser.post(path, data={"ref": "develop", "token": "bl_viewer"}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    assert len(platform.views) == 1
    assert not platform.views[number].cancel_requested


def test_a_proxy_that_renames_the_host_is_no_other_site(browser: httpx.Client) -> None:
    headers = {"Origin": "https://branchline.example.com", "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/login", data={"token": "bl_admin"}, headers=headers).status_code == 303


def test_the_cookie_opens_no_door_of_the_api(browser: httpx.Client) -> None:
    log_in(browser)
    assert browser.get("/api/v1/projects").status_code == 401
    assert browser.post("/api/v1/projects/shop/deployments", json={"ref": "develop"}).status_code == 401


def test_a_link_from_elsewhere_is_asked_for_once_more(browser: httpx.Client) -> None:
    answer = browser.get("/projects/shop", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0;url=/projects/shop"' in answer.text
    assert "git.example.com" not in answer.text


# --- what is done ----------------------------------------------------------------------------------------------------


def test_a_deployment_is_asked_for_and_cancelled(browser: httpx.Client, platform: FakePlatform) -> None:
    log_in(browser, Role.DEVELOPER)
    answer = browser.post("/projects/shop/deployments", data={"ref": " develop ", "reason": "ünï + ☂"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/deployments/1")
    view = platform.views[1]
    assert (view.actor, view.trigger, view.reason, view.environment) == ("developer", "dashboard", "ünï + ☂", "develop")
    assert browser.post("/deployments/1/cancel").headers["location"] == "/deployments/1"
    assert platform.views[1].cancel_requested
    assert "Somebody asked to cancel" in browser.get("/deployments/1").text


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"ref": "nowhere", "reason": "because"}, 422, "There is no ref nowhere."),
        ({"ref": "  "}, 422, "There is no ref to deploy."),
        ({"ref": "x" * 500}, 422, "must have at most 400 characters"),
        ({"ref": "a\x00b"}, 422, "does not have the form"),
        ({"ref": "develop", "commit": "zzz"}, 422, "does not have the form"),
        ({"ref": "v1"}, 403, "may not do this"),
    ],
)
def test_what_cannot_be_deployed_is_told_beside_the_form(
    browser: httpx.Client, platform: FakePlatform, fields: dict[str, str], status: int, words: str
) -> None:
    log_in(browser, Role.DEVELOPER)
    answer = browser.post("/projects/shop/deployments", data=fields)
    assert answer.status_code == status
    assert words in answer.text
    assert "<h1>shop</h1>" in answer.text
    if "reason" in fields:
        assert 'value="because"' in answer.text
    assert not platform.views


def test_a_form_that_cannot_be_read(browser: httpx.Client) -> None:
    log_in(browser)
    for body in (b"ref=\xff\xfe", b"ref=%ff%fe", b"&".join(b"a=1" for _ in range(100))):
        answer = browser.post("/projects/shop/deployments", content=body)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text


def test_viewers_are_offered_nothing(browser: httpx.Client, platform: FakePlatform) -> None:
    platform.deployed("shop", "develop", "refs/heads/develop", COMMIT)
    log_in(browser, Role.VIEWER)
    for path in ("/projects/shop", "/deployments/1"):
        forms = re.findall(r'<form[^>]*action="([^"]*)"', browser.get(path).text)
        assert forms == ["/logout"]
    assert browser.post("/deployments/1/cancel").status_code == 403


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_everything_is_escaped(browser: httpx.Client, platform: FakePlatform) -> None:
    platform.repositories["shop"] = HOSTILE
    number = platform.deployed(
        "shop", "develop", f"refs/heads/{HOSTILE}", COMMIT, actor=HOSTILE, reason=HOSTILE, subject=HOSTILE
    ).id
    platform.stage(number, Stage.BUILD, StageState.FAILED, 3, note=HOSTILE)
    platform.finish(number, State.SUCCEEDED, FailureView(code=HOSTILE, sentence=HOSTILE, hint=f"`{HOSTILE}`"))
    said = {"outcome": HOSTILE, "proof": HOSTILE, "source": HOSTILE, "runner": HOSTILE}
    platform.change(number, **said, changes=changes_of_all_kinds(HOSTILE))
    platform.known_tokens[HOSTILE] = ("bl_hostile", Role.ADMIN)
    browser.post("/login", data={"token": "bl_hostile"})
    for path in ("/", "/projects/shop", f"/deployments/{number}", f"/projects/{HOSTILE}", f"/{HOSTILE}"):
        text = browser.get(path).text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "{{7*7}}" in text or HOSTILE in path or "49" not in text
    answer = browser.post("/projects/shop/deployments", data={"ref": "nowhere", "reason": HOSTILE})
    assert "&lt;script&gt;" in answer.text
    assert "<script>alert" not in answer.text


def test_no_page_has_a_script_or_style_of_its_own(browser: httpx.Client, platform: FakePlatform) -> None:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    platform.stage(number, Stage.BUILD, StageState.RUNNING)
    log_in(browser)
    for path in ("/", "/projects/shop", f"/deployments/{number}", "/login", "/nothing"):
        text = browser.get(path).text
        assert not re.findall(r"<script(?![^>]*\ssrc=)", text)
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=", text)
        assert not re.findall(r'(?:src|href)="https?://(?!develop-shop)', text)


def test_the_overview_tells_what_is_live_where(browser: httpx.Client, platform: FakePlatform) -> None:
    first = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT, subject="A good one", actor="grace").id
    platform.finish(first, State.SUCCEEDED)
    second = platform.deployed("shop", "develop", "refs/heads/develop", "b" * 40, subject="A bad one").id
    platform.finish(second, State.FAILED, failed_stage="test")
    third = platform.deployed("shop", "production", "refs/tags/v1.0.0", "c" * 40, tier=Tier.PRODUCTION).id
    platform.change(third, state=State.RUNNING)
    platform.stage(third, Stage.VERIFY, StageState.RUNNING)
    platform.deployed("shop", "develop", "refs/heads/develop", "d" * 40)
    log_in(browser)
    text = re.sub(r"<[^>]+>", " ", browser.get("/").text)
    text = re.sub(r"\s+", " ", text)
    assert f"develop {COMMIT[:8]} A good one #1 went live just now , by grace" in text
    assert "#2 failed: test" in text
    assert "A bad one" not in text
    assert "#3 deploying: verify" in text
    assert "1 queued" in text


def test_what_an_environment_lacks_is_told(browser: httpx.Client, platform: FakePlatform) -> None:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    platform.finish(number, State.SUCCEEDED)
    platform.troubles["shop", "develop"] = "Web 1 is missing, and cannot be put back: <b>no</b> image."
    log_in(browser)
    for page in ("/", "/projects/shop"):
        assert "Web 1 is missing, and cannot be put back: &lt;b&gt;no&lt;/b&gt; image." in browser.get(page).text


def test_a_failure_is_told_with_what_to_do(browser: httpx.Client, platform: FakePlatform) -> None:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    platform.stage(number, Stage.TEST, StageState.FAILED, 4.2)
    platform.finish(
        number,
        State.FAILED,
        FailureView(code="tests_failed", sentence="The tests failed.", hint="Run `pytest -q` yourself."),
        failed_stage=Stage.TEST,
    )
    log_in(browser)
    text = browser.get(f"/deployments/{number}").text
    assert "The tests failed." in text
    assert "Run <code>pytest -q</code> yourself." in text
    assert "visitors noticed nothing" in text
    assert "Deploy this commit again" in text
    assert "4.2 s" in text
    assert ">waiting<" not in text, "a deployment that is over waits for nothing"


def changes_of_all_kinds(text: str) -> ChangesView:
    """Something of everything that can change, with this text wherever somebody writes one."""
    commit = CommitView(sha="c" * 40, author=text, at=datetime(2030, 1, 2, tzinfo=UTC), subject=text)
    return ChangesView(
        since=1,
        before="b" * 40,
        came=CommitsView(total=103, newest=[commit]),
        went=CommitsView(total=1, newest=[commit]),
        migrations_total=1,
        migrations=[MigrationView(path=f"shop/migrations/0002_{text}.py", what=FileChange.ADDED)],
        config=[
            LayerChangesView(layer="develop", before=3, after=4, set=["API_KEY"], changed=["DSN"], removed=["OLD"]),
            LayerChangesView(layer="login", before=0, after=2, unknown=text),
        ],
    )


def test_the_whole_story_is_told(browser: httpx.Client, platform: FakePlatform) -> None:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT).id
    platform.stage(number, Stage.BUILD, StageState.PASSED, 4.2)
    log_in(browser)
    assert "That is not known yet." in browser.get(f"/deployments/{number}").text
    platform.change(
        number,
        stages=[one.model_copy(update={"attempts": 2}) for one in platform.views[number].stages],
        proof="token laptop",
        source="10.0.0.7",
        runner="nonprod-1",
        attempts=3,
        replaces=1,
        replaced_by=7,
        outcome="Went live; replaced by 7 after 3 h.",
        changes=changes_of_all_kinds("till"),
    )
    text = " ".join(browser.get(f"/deployments/{number}").text.split())
    for told in (
        "(cli, token laptop, from 10.0.0.7)",
        "Went live; replaced by 7 after 3 h.",
        '<a href="/deployments/7">#7</a>',
        'nonprod-1 <span class="faint">(attempt 3)',
        '<span class="faint">(attempt 2)</span>',
        "103 commits came",
        "and 102 older ones",
        "1 commit of the release before went",
        '<span class="subject">till</span>',
        "1 database migration<",
        '<span class="faint">added</span> <code class="long">shop/migrations/0002_till.py</code>',
        "Config of develop, version 3 → 4",
        '<span class="faint">set</span> <code>API_KEY</code>',
        '<span class="faint">changed</span> <code>DSN</code>',
        '<span class="faint">removed</span> <code>OLD</code>',
        "Config of login, version none → 2",
    ):
        assert told in text, told
    platform.change(number, changes=ChangesView())
    assert "nothing to compare with" in browser.get(f"/deployments/{number}").text
    platform.change(number, changes=ChangesView(since=1, before="b" * 40))
    text = browser.get(f"/deployments/{number}").text
    assert "The same commit." in text
    assert "The same config." in text
    unknown = ChangesView(since=1, before="b" * 40, unknown="It went.", config_unknown="Nobody wrote it down.")
    platform.change(number, changes=unknown)
    text = browser.get(f"/deployments/{number}").text
    assert "Commits and migrations are not known: It went." in text
    assert "Config keys are not known: Nobody wrote it down." in text
    assert "The same" not in text


def test_parts_are_what_pages_hold(browser: httpx.Client, platform: FakePlatform) -> None:
    platform.deployed("shop", "develop", "refs/heads/develop", COMMIT)
    log_in(browser)
    for path, marks in (("/", "Overview"), ("/projects/shop", "<form"), ("/deployments/1", "log-title")):
        whole = browser.get(path).text
        part = browser.get(path, headers={"HX-Request": "true"}).text
        assert "<html" in whole
        assert marks in whole
        assert "<html" not in part
        assert marks not in part
        assert len(part) > 200


def test_deployments_of_a_project_in_pages(browser: httpx.Client, platform: FakePlatform) -> None:
    for number in range(60):
        platform.deployed("shop", "develop" if number % 2 else "main", "refs/heads/x", COMMIT)
    log_in(browser)
    first = browser.get("/projects/shop").text
    older = re.findall(r'<a href="(/projects/shop\?before=\d+)">Older', first)
    assert older == ["/projects/shop?before=36"]
    assert re.findall(r'href="/deployments/(\d+)">#', browser.get(older[0]).text)[-25:][0] == "35"
    one = browser.get("/projects/shop", params={"environment": "main"}).text
    assert 'hx-get="/projects/shop?environment=main"' in one
    assert "before=12&amp;" in one or "environment=main&amp;before=" in one


def test_problems_are_pages_for_people(browser: httpx.Client, platform: FakePlatform) -> None:
    log_in(browser)
    for path, status in (("/nothing", 404), ("/projects/nope", 404), ("/deployments/9", 404), ("/deployments/x", 422)):
        answer = browser.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert 'role="alert"' in answer.text
    platform.faults["projects.list"] = PlatformBroke("The database does not answer.")
    assert browser.get("/").status_code == 503
    platform.faults["projects.list"] = ZeroDivisionError("inside")
    broken = browser.get("/")
    assert broken.status_code == 500
    assert "Incident" in broken.text
    assert "inside" not in broken.text


def test_static_files_are_kept_by_browsers(browser: httpx.Client) -> None:
    page = browser.get("/login").text
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(addresses) == 4
    for address in addresses:
        answer = browser.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert "immutable" not in browser.get("/static/htmx.js").headers["cache-control"]
    assert "Zero-Clause BSD" in browser.get("/static/htmx.LICENSE").text
    assert browser.get("/static/nothing.js").status_code == 404


# --- the register ----------------------------------------------------------------------------------------------------


def test_the_register_is_read_and_filtered(browser: httpx.Client, platform: FakePlatform) -> None:
    log_in(browser)
    for number in range(1, 61):
        platform.register.append(
            AuditLine(
                id=number,
                at=datetime.now(UTC),
                kind=Kind.DEPLOYMENT_REQUESTED,
                actor="ada",
                project="shop",
                environment="develop",
                deployment=number,
                detail={"ref": HOSTILE, "nothing": None, "commits": 3},
                proof="token laptop",
                source="192.0.2.7",
            )
        )
    first = browser.get("/register")
    assert first.status_code == 200
    assert HOSTILE not in first.text
    assert "&lt;script&gt;" in first.text
    assert "commits 3" in first.text
    assert "nothing" not in first.text
    assert "token laptop from 192.0.2.7" in first.text
    assert 'href="/deployments/60"' in first.text
    older = re.search(r'href="(/register\?[^"]*before=\d+)">Older', first.text)
    assert older
    second = browser.get(older[1].replace("&amp;", "&"))
    assert 'href="/deployments/60"' not in second.text
    assert 'href="/deployments/1"' in second.text
    assert "Newest" in second.text
    none = browser.get("/register", params={"actor": "nobody", "text": '"><script>'})
    assert "Nothing of that is in the register." in none.text
    assert '"><script>' not in none.text
    assert browser.get("/register", params={"text": "x" * 300}).status_code == 422
