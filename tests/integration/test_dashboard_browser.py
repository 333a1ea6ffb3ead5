"""The dashboard in a real browser: what people see, while it happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from branchline.adapters.oidc import OidcClient, OidcProvider
from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.config import Secret
from branchline.domain.deployment import State
from branchline.domain.environment import Tier
from branchline.domain.pipeline import Stage, StageState
from branchline.operations.devices import NotLetIn
from branchline.wire import FailureView
from tests.fakes.platform import COMMIT, FakePlatform
from tests.fakes.providers import CLIENT, SECRET, FakeOidc
from tests.integration.served import recorded, served

CHROMIUM = "/usr/bin/chromium"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"

CONTRAST = """
() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const line = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.slice(0, 3).map((v) => line(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const c = rgb(getComputedStyle(one).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
    if (!words || !node.checkVisibility({ opacityProperty: true }) || node.closest("[disabled]")) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) weak.push(`${words.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return weak;
}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def platform() -> FakePlatform:
    platform = FakePlatform()
    platform.repositories["shop"] = "https://git.example.com/shop.git"
    return platform


@pytest.fixture
def url(platform: FakePlatform) -> Iterator[str]:
    with recorded(), served(platform) as url:
        yield url


class Visit:
    """A page, with all that the browser complained about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None
        )
        page.on("dialog", self._dialog)
        self.asked: list[str] = []
        page.set_default_timeout(10_000)

    def _dialog(self, dialog: Dialog) -> None:
        self.asked.append(dialog.message)
        dialog.accept()

    def log_in(self, path: str = "/", role: Role = Role.ADMIN) -> Page:
        self.page.goto(self.url + path)
        self.page.get_by_label("Token").fill(f"bl_{role}")
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(self.url + path)
        return self.page


@pytest.fixture
def visit(chromium: Browser, url: str) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    made = Visit(context.new_page(), url)
    yield made
    context.close()
    assert made.complaints == []


def begun(platform: FakePlatform, **more: object) -> int:
    number = platform.deployed("shop", "develop", "refs/heads/develop", COMMIT, **more).id
    platform.change(number, state=State.RUNNING, started_at=datetime.now(UTC))
    return number


def test_logging_in_and_out(visit: Visit) -> None:
    page = visit.log_in()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("link", name="shop")).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_focused()
    page.goto(visit.url)
    expect(page.get_by_label("Token")).to_be_visible()


def test_the_overview_keeps_itself_fresh(visit: Visit, platform: FakePlatform) -> None:
    page = visit.log_in()
    expect(page.get_by_text("No environments yet")).to_be_visible()
    number = begun(platform, subject="A new till")
    row = page.locator("[data-environment='shop/develop']")
    expect(row).to_contain_text(f"#{number} deploying")
    platform.finish(number, State.SUCCEEDED)
    expect(row).to_contain_text("A new till")
    expect(row.get_by_text("live", exact=True)).to_be_visible()


def test_keeping_fresh_leaves_the_focus_alone(visit: Visit, platform: FakePlatform) -> None:
    begun(platform)
    page = visit.log_in()
    link = page.get_by_role("link", name="shop")
    link.focus()
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        pass
    platform.finish(1, State.FAILED, failed_stage="test")
    expect(page.locator("[data-environment='shop/develop']")).to_contain_text("#1 failed: test")
    expect(link).to_be_focused()


def test_a_deployment_from_the_form_to_its_end(visit: Visit, platform: FakePlatform) -> None:
    page = visit.log_in("/projects/shop")
    page.get_by_label("Branch or tag").fill("develop")
    page.get_by_label("Reason").fill("to see it")
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url("**/deployments/1")
    state = page.locator(".headline").get_by_role("status")
    expect(state).to_have_text("queued")
    platform.change(1, state=State.RUNNING, started_at=datetime.now(UTC))
    platform.stage(1, Stage.BUILD, StageState.RUNNING)
    platform.say(1, "build", "step 1 of 2")
    expect(page.get_by_text("step 1 of 2")).to_be_visible()
    expect(state).to_have_text("deploying")
    build = page.locator(".stage", has_text="build")
    expect(build).to_contain_text("running")
    expect(page.locator(".stage", has_text="switch")).to_contain_text("waiting")
    platform.say(1, "build", "step 2 of 2")
    platform.stage(1, Stage.BUILD, StageState.PASSED, seconds=3.4)
    expect(page.get_by_text("step 2 of 2")).to_be_visible(timeout=2_000)
    expect(build).to_contain_text("3.4 s")
    expect(build).to_contain_text("passed")
    platform.finish(1, State.SUCCEEDED, release=3)
    expect(state).to_have_text("succeeded")
    expect(page.get_by_role("link", name="Open")).to_have_attribute("href", "http://develop-shop.localhost:8080")
    expect(page.get_by_text("The deployment has ended: succeeded.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_failure_stands_out(visit: Visit, platform: FakePlatform) -> None:
    number = begun(platform)
    platform.stage(number, Stage.TEST, StageState.FAILED, 2)
    why = FailureView(code="tests_failed", sentence="Two tests failed.", hint="Run `pytest` yourself.")
    page = visit.log_in(f"/deployments/{number}")
    platform.finish(number, State.FAILED, why, failed_stage="test")
    problem = page.get_by_role("region", name="What went wrong")
    expect(problem).to_contain_text("Two tests failed.")
    expect(problem.locator("code").first).to_have_text("pytest")
    box = problem.bounding_box()
    assert box
    assert box["y"] < 250, "it is the first thing on the page"


def test_cancelling_asks_first(visit: Visit, platform: FakePlatform) -> None:
    number = begun(platform)
    page = visit.log_in(f"/deployments/{number}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Somebody asked to cancel")).to_be_visible()
    assert visit.asked == [f"Cancel deployment #{number}?"]
    assert platform.views[number].cancel_requested


def test_deploying_a_commit_again(visit: Visit, platform: FakePlatform) -> None:
    platform.finish(begun(platform), State.SUCCEEDED)
    page = visit.log_in("/deployments/1")
    page.get_by_role("button", name="Deploy this commit again").click()
    page.wait_for_url("**/deployments/2")
    again = platform.views[2]
    assert (again.commit, again.ref, again.reason) == (COMMIT, "refs/heads/develop", "Once more, after #1")


def test_the_log_goes_on_over_a_restart_of_the_server(chromium: Browser, platform: FakePlatform) -> None:
    number = begun(platform)
    platform.say(number, "build", *(f"early {count}" for count in range(50)))
    context = chromium.new_context()
    with recorded(), served(platform) as url:
        page = Visit(context.new_page(), url).log_in(f"/deployments/{number}")
        expect(page.locator(".line")).to_have_count(50)
    expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    platform.say(number, "build", "late")
    with recorded(), served(platform, url.removeprefix("http://")):
        expect(page.get_by_text("late")).to_be_visible()
        expect(page.locator(".line")).to_have_count(51)
        expect(page.get_by_text("The server does not answer.")).to_be_hidden()
        context.close()


def test_a_long_log_stays_usable(visit: Visit, platform: FakePlatform) -> None:
    number = begun(platform)
    platform.say(number, "build", *(f"line {count}" for count in range(12_000)))
    page = visit.log_in(f"/deployments/{number}")
    expect(page.get_by_text("line 11999", exact=True)).to_have_count(1)
    page.locator("#log").scroll_into_view_if_needed()
    expect(page.get_by_text("line 11999", exact=True)).to_be_in_viewport()
    assert page.locator("#log > *").count() <= 5000
    expect(page.locator(".line .text").first).to_have_text("line 7000")
    expect(page.get_by_text("Only the last lines are shown here")).to_be_visible()
    # what is not shown was not sent either
    assert page.locator("#log").evaluate("log => log.dataset.events").endswith("?after=21000")
    # who reads further up is not dragged along
    page.locator("#log").evaluate("log => { log.scrollTop = 1000; }")
    expect(page.get_by_role("button", name="Follow")).to_be_visible()
    platform.say(number, "build", "one more")
    expect(page.get_by_text("one more")).to_have_count(1)
    expect(page.get_by_text("one more")).not_to_be_in_viewport()
    page.get_by_role("button", name="Follow").click()
    expect(page.get_by_text("one more")).to_be_in_viewport()


def test_hostile_words_stay_words(visit: Visit, platform: FakePlatform) -> None:
    number = begun(platform, subject=HOSTILE, reason=HOSTILE, actor=HOSTILE)
    platform.say(number, "build", HOSTILE, "\x1b[31mred\x1b[0m\x1b]8;;http://evil\x07link\x1b]8;;\x07")
    platform.stage(number, Stage.BUILD, StageState.FAILED, 1, note=HOSTILE)
    platform.finish(number, State.FAILED, FailureView(code="x", sentence=HOSTILE, hint=HOSTILE), failed_stage="build")
    page = visit.log_in(f"/deployments/{number}")
    expect(page.locator(".line .text").first).to_have_text(HOSTILE)
    expect(page.locator(".line .text").nth(1)).to_have_text("redlink")
    page.goto(visit.url)
    expect(page.get_by_text("#1 failed: build")).to_be_visible()
    assert page.locator("main img").count() == 0
    assert visit.asked == []


def test_a_link_from_another_site_finds_the_login(visit: Visit, platform: FakePlatform) -> None:
    platform.finish(begun(platform), State.SUCCEEDED)
    page = visit.log_in()
    page.route(
        "http://chat.example/",
        lambda route: route.fulfill(
            content_type="text/html", body=f'<a href="{visit.url}/deployments/1">the deployment</a>'
        ),
    )
    page.goto("http://chat.example/")
    page.get_by_role("link").click()
    expect(page.get_by_role("heading", name="#1 shop → develop")).to_be_visible()


def test_a_session_that_ended_sends_to_the_login(visit: Visit, platform: FakePlatform) -> None:
    page = visit.log_in("/projects/shop")
    del platform.known_tokens["admin"]
    page.wait_for_url("**/login?then=/projects/shop")
    expect(page.get_by_label("Token")).to_be_visible()
    # the browser itself tells of the 401 that ended it
    assert all("401" in complaint for complaint in visit.complaints)
    visit.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_is_legible(chromium: Browser, url: str, platform: FakePlatform, scheme: str, width: int) -> None:
    start = datetime.now(UTC) - timedelta(minutes=3)
    for state in State:
        number = platform.deployed(
            "shop",
            "feature-with-a-long-name-0a1b2c3d",
            f"refs/heads/feature/{'long' * 30}",
            COMMIT,
            requested_at=start,
            subject="A subject of many words, so that it has to be wrapped somewhere on the way to its end",
        ).id
        platform.stage(number, Stage.BUILD, StageState.PASSED, 12, began=start, note="from the cache")
        platform.stage(number, Stage.TEST, StageState.FAILED if state.final else StageState.RUNNING, 9, began=start)
        platform.stage(number, Stage.PUBLISH, StageState.SKIPPED, 0, began=start)
        platform.say(number, "build", "x" * 400, "words " * 100)
        why = FailureView(code="unhealthy", sentence="web did not answer. " * 3, hint="See `branchline logs`.")
        platform.change(
            number,
            state=state,
            started_at=start,
            failure=why,
            failed_stage="test",
            image="shop@sha256:" + "a" * 64,
            reason="because " * 20,
            replaces=1,
            superseded_by=1,
            cancel_requested=True,
            release=1,
            config={"shop/env/develop": 2},
            finished_at=start + timedelta(minutes=1) if state.final else None,
            live=state is State.SUCCEEDED,
        )
    last = platform.deployed("shop", "production", "refs/tags/v1", COMMIT, tier=Tier.PRODUCTION).id
    platform.say(last, "build", "one line")
    platform.finish(last, State.SUCCEEDED)
    context = chromium.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    visit = Visit(context.new_page(), url)
    page = visit.page
    page.goto(url + "/login")
    assert page.evaluate(CONTRAST) == []
    visit.log_in()
    numbers = [f"/deployments/{number}" for number in platform.views]
    for path in ("/", "/projects/shop", *numbers, "/nothing"):
        page.goto(url + path)
        if "/deployments" in path:
            expect(page.locator(".line").first).to_be_visible()
        if path in numbers[:1]:
            expect(page.locator("dd", has_text="develop 2")).to_be_visible()
        assert page.evaluate(CONTRAST) == [], path
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0, path
        assert len(page.query_selector_all("h1")) == 1
        fields = "[...document.querySelectorAll('input:not([type=hidden]), button')]"
        unnamed = f"{fields}.filter((one) => !one.labels?.length && !one.textContent)"
        assert page.evaluate(f"{unnamed}.length") == 0
    assert [words for words in visit.complaints if "404" not in words] == []
    context.close()


def test_by_keyboard_alone(visit: Visit, platform: FakePlatform) -> None:
    platform.finish(begun(platform), State.SUCCEEDED)
    page = visit.log_in()
    page.goto(visit.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="shop")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/projects/shop"))


# --- logging in with a provider, which is another site: 127.0.0.1, where the dashboard is localhost ---


@pytest.fixture
def provider(platform: FakePlatform) -> Iterator[FakeOidc]:
    with FakeOidc() as made:
        made.claims = {"preferred_username": "ada", "email": "ada@example.com", "groups": []}
        client = OidcClient(made.url, CLIENT, lambda: Secret(SECRET))
        platform.providers = [OidcProvider(client)]
        platform.members.add(
            Actor("root", "tests", {EVERYWHERE: Role.ADMIN}), "ada", Role.VIEWER, email="ada@example.com"
        )
        made.claims["email_verified"] = True
        yield made


def test_logging_in_with_a_provider(provider: FakeOidc, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/projects/shop")
    expect(page.get_by_label("Token")).to_be_visible()
    page.get_by_role("link", name=f"Log in with {provider.url.removeprefix('http://')}").click()
    page.wait_for_url(f"{visit.url}/projects/shop")
    expect(page.get_by_role("heading", name="shop")).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    cookies = {one["name"]: one for one in page.context.cookies(visit.url)}
    assert set(cookies) == {"branchline_session"}, "what was kept for the login is gone"
    assert (cookies["branchline_session"]["httpOnly"], cookies["branchline_session"]["sameSite"]) == (True, "Strict")
    page.get_by_role("link", name="ada").click()
    expect(page.get_by_role("heading", name="ada")).to_be_visible()
    expect(page.get_by_text("(this one)")).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Log out everywhere").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(f"{visit.url}/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_the_callback_in_the_history_is_worth_nothing(provider: FakeOidc, visit: Visit) -> None:
    page = visit.page
    callbacks: list[str] = []
    page.on("request", lambda asked: callbacks.append(asked.url) if "/callback?" in asked.url else None)
    page.goto(f"{visit.url}/login/oidc")
    page.wait_for_url(f"{visit.url}/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert len(callbacks) == 1
    page.goto(callbacks[0])
    expect(page.get_by_role("alert")).to_contain_text("not begun in this browser")
    assert [one["name"] for one in page.context.cookies(visit.url)] == []
    visit.complaints.clear()  # of the status 403, which is what was wanted


def test_letting_a_device_in(provider: FakeOidc, platform: FakePlatform, visit: Visit) -> None:
    page = visit.page
    codes = platform.devices.ask("branchline 9", "laptop", "192.0.2.1")
    page.goto(f"{visit.url}/device")
    page.get_by_role("link", name="Log in with").click()
    page.get_by_label("Code that").fill(codes.user_code.lower())
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("laptop")).to_be_visible()
    expect(page.get_by_text("192.0.2.1")).to_be_visible()
    expect(page.get_by_text(codes.user_code)).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Let it in as ada").click()
    expect(page.get_by_role("heading", name="laptop is let in")).to_be_visible()
    assert platform.tokens.authenticate(platform.devices.poll(codes.device_code).token).name == "ada"


def test_a_link_with_a_code_survives_the_login(provider: FakeOidc, platform: FakePlatform, visit: Visit) -> None:
    page = visit.page
    codes = platform.devices.ask("branchline 9", "laptop", "192.0.2.1")
    page.goto(codes.verification_uri_complete)
    page.get_by_role("link", name="Log in with").click()
    page.get_by_role("button", name="No, send it away").click()
    expect(page.get_by_role("heading", name="laptop is sent away")).to_be_visible()
    with pytest.raises(NotLetIn):
        platform.devices.poll(codes.device_code)
