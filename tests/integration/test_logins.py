"""Logging in with a real provider, OpenBao, at the real server on its real tables: all that must work, and must not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from branchline.domain.access import Role
from branchline.domain.errors import Unauthenticated
from branchline.layout import Layout
from branchline.operations.tokens import digest_of
from branchline.settings import Settings
from branchline.stack.openbao import OpenBao
from branchline.store import login_tables as t
from branchline.store.database import SqlStore
from branchline.wire_people import NewToken
from tests.fakes.providers import CLIENT, SECRET, FakeGitHub, FakeOidc, another_key, unsigned
from tests.integration.people_at import LOGIN, OPERATOR, SESSION, Browser, Place, platform_at
from tests.openbao_people import People

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def both(home_layout: Layout, openbao: OpenBao, sql_store: SqlStore) -> Iterator[tuple[Place, People]]:
    """A platform whose people are in OpenBao."""
    made: list[People] = []

    def settings(url: str) -> Settings:
        people = People(openbao.endpoint, home_layout, f"p{uuid4().hex[:8]}", f"{url}/login/oidc/callback")
        made.append(people)
        return Settings(
            home=home_layout.home,
            public_url=url,
            oidc_issuer=people.issuer,
            oidc_client_id=people.client_id,
            oidc_client_secret=people.client_secret,  # type: ignore[arg-type]
            oidc_scopes="profile groups",
        )

    with platform_at(settings) as place:
        yield place, made[0]


@pytest.fixture
def place(both: tuple[Place, People]) -> Place:
    return both[0]


@pytest.fixture
def people(both: tuple[Place, People]) -> People:
    return both[1]


@pytest.fixture
def browser(place: Place) -> Iterator[Browser]:
    with Browser(place.url) as made:
        yield made


@pytest.fixture
def ada(people: People) -> str:
    """Somebody who can log in, in no group; called otherwise in each test."""
    name = f"ada-{uuid4().hex[:8]}"
    people.add(name)
    return name


def log_in(browser: Browser, people: People, person: str, then: str = "/") -> httpx.Response:
    return browser.arrive(people.log_in(browser.go_to_provider(then), person))


def kinds(place: Place, browser: Browser) -> list[str]:
    return [one.kind for one in place.events(browser.source)]


def refused(place: Place, browser: Browser, answer: httpx.Response, code: str, status: int = 403) -> None:
    """Nobody got in, the page says so with a hint, and the register has it."""
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert not browser.session
    assert not browser.is_in
    last = place.events(browser.source)[-1]
    assert (last.kind, last.detail["code"], last.actor) == ("login.failed", code, "(nobody)")


def test_a_whole_login(place: Place, people: People, browser: Browser, ada: str) -> None:
    page = browser.get("/login?then=/account").text
    assert "Log in with" in page
    assert 'name="token"' in page
    address = browser.go_to_provider("/account")
    kept = browser.http.cookies.get(LOGIN)
    answer = browser.arrive(people.log_in(address, ada))
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0;url=/account"' in answer.text
    cookies = {one.partition("=")[0]: one.lower() for one in answer.headers.get_list("set-cookie")}
    assert "httponly" in cookies[SESSION]
    assert "samesite=strict" in cookies[SESSION]
    assert "max-age=0" in cookies[LOGIN]
    assert kept
    assert kept not in answer.text
    account = browser.get("/account").text
    assert f"<h1>{ada}</h1>" in account
    assert f"OIDC {people.issuer}" in account
    assert "Browser of the tests" in account
    assert "(this one)" in account
    assert browser.source in account
    event = place.events(browser.source)[-1]
    assert (event.kind, event.actor, event.proof) == ("login.succeeded", ada, f"OIDC {people.issuer}")


def test_behind_https_cookies_are_bound_to_the_host(place: Place, people: People, browser: Browser, ada: str) -> None:
    browser.http.headers["X-Forwarded-Proto"] = "https"
    answer = browser.get("/login/oidc")
    begun = answer.headers["set-cookie"]
    assert begun.startswith(f"__Host-{LOGIN}=")
    assert "samesite=lax" in begun.lower()
    assert "secure" in begun.lower()
    secret = begun.partition(";")[0].partition("=")[2]
    back = people.log_in(answer.headers["location"], ada)
    plain = browser.http.get(back, headers={"Cookie": f"{LOGIN}={secret}"})
    assert plain.status_code == 403, "a cookie without the prefix may be a neighbour's"
    done = browser.http.get(back, headers={"Cookie": f"__Host-{LOGIN}={secret}"})
    session = next(one for one in done.headers.get_list("set-cookie") if SESSION in one)
    assert session.startswith(f"__Host-{SESSION}=")
    assert "secure" in session.lower()
    assert "path=/" in session.lower()
    assert "domain" not in session.lower()


def test_pictures_on_another_site_use_up_nobodys_logins(
    place: Place, people: People, browser: Browser, ada: str
) -> None:
    as_picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}
    for path in ("/login/oidc", "/login/oidc/callback?state=x&code=y"):
        answers = {browser.http.get(path, headers=as_picture).status_code for _ in range(40)}
        assert answers == {403}
    assert LOGIN not in browser.http.cookies
    log_in(browser, people, ada)
    assert browser.is_in


def test_a_token_logs_so_many_browsers_in_and_no_more(place: Place, browser: Browser, people: People, ada: str) -> None:
    log_in(browser, people, ada)
    place.platform.members.add(OPERATOR, ada, Role.VIEWER)
    made = place.platform.tokens.create(OPERATOR, NewToken(name="laptop", member=ada))
    answers = []
    for _ in range(31):
        with Browser(place.url) as one:
            answers.append(one.post("/login", token=made.token).status_code)
    assert answers == [303] * 30 + [429]


def test_who_comes_by_another_name_of_the_server_is_sent_to_its_public_one(place: Place, browser: Browser) -> None:
    other = browser.http.get("/login/oidc", params={"then": "/account"}, headers={"Host": "another.example"})
    assert other.headers["location"] == f"{place.url}/login/oidc?then=%2Faccount&moved=true"
    assert LOGIN not in other.headers.get("set-cookie", "")
    renamed = browser.http.get(
        "/login/oidc", params={"then": "/account", "moved": "true"}, headers={"Host": "another.example"}
    )
    assert renamed.headers["location"].startswith("http://127.0.0.1"), "a proxy that renames the host makes no circle"


def test_the_groups_of_the_provider_give_roles(place: Place, people: People, browser: Browser) -> None:
    group, grace = f"g{uuid4().hex[:8]}", f"grace-{uuid4().hex[:8]}"
    people.add(grace, group)
    log_in(browser, people, grace)
    assert "None yet" in browser.get("/account").text
    place.platform.members.add(OPERATOR, group, Role.DEVELOPER, group=True)
    assert "developer everywhere" in browser.get("/account").text, "it counts at once"
    people.remove_from(group)
    assert "developer everywhere" in browser.get("/account").text, "groups are those of the last login"
    log_in(browser, people, grace)
    assert "None yet" in browser.get("/account").text


def test_the_wrong_state_is_refused(place: Place, people: People, browser: Browser, ada: str) -> None:
    back = people.log_in(browser.go_to_provider(), ada)
    wrong = re.sub(r"state=[^&]*", "state=another", back)
    refused(place, browser, browser.arrive(wrong), "login_elsewhere")


def test_a_login_that_another_browser_began_is_refused(
    place: Place, people: People, browser: Browser, ada: str
) -> None:
    with Browser(place.url) as thief:
        back = people.log_in(thief.go_to_provider(), ada)
        refused(place, browser, browser.arrive(back), "login_elsewhere")
        browser.go_to_provider()
        refused_twice = browser.arrive(back)
        assert refused_twice.status_code == 403
        assert not browser.session
        assert thief.arrive(back).status_code == 200, "the one that began it was not disturbed"


def test_an_answer_counts_once(place: Place, people: People, browser: Browser, ada: str) -> None:
    back = people.log_in(browser.go_to_provider(), ada)
    kept = browser.http.cookies.get(LOGIN) or ""
    browser.arrive(back)
    with Browser(place.url) as again:
        again.http.cookies.set(LOGIN, kept, domain="localhost.local", path="/")
        refused(place, again, again.arrive(back), "login_over")


def test_who_takes_too_long_begins_anew(
    place: Place, people: People, browser: Browser, ada: str, sql_store: SqlStore
) -> None:
    back = people.log_in(browser.go_to_provider(), ada)
    kept = digest_of(browser.http.cookies.get(LOGIN) or "")
    with sql_store.engine.begin() as db:
        past = t.pending_login.update().where(t.pending_login.c.digest == kept)
        assert db.execute(past.values(expires_at=sa.func.now())).rowcount == 1
    refused(place, browser, browser.arrive(back), "login_over")


def test_a_made_up_code_is_refused(place: Place, people: People, browser: Browser, ada: str) -> None:
    back = people.log_in(browser.go_to_provider(), ada)
    made_up = re.sub(r"code=[^&]*", "code=made-up", back)
    refused(place, browser, browser.arrive(made_up), "code_refused")


def test_a_code_that_was_used_elsewhere_is_refused(place: Place, people: People, browser: Browser, ada: str) -> None:
    first = people.log_in(browser.go_to_provider(), ada)
    second = people.log_in(browser.go_to_provider(), ada)
    old_code = re.sub(r"code=[^&]*", re.search(r"code=[^&]*", first).group(), second)  # type: ignore[union-attr]
    refused(place, browser, browser.arrive(old_code), "code_refused")  # its verifier is another


def test_somebody_who_changes_their_mind(place: Place, browser: Browser) -> None:
    state = re.search(r"state=([^&]*)", browser.go_to_provider())
    assert state
    answer = browser.arrive(f"{place.url}/login/oidc/callback?error=access_denied&state={state[1]}")
    refused(place, browser, answer, "provider_refused")
    assert "access_denied" in answer.text


def test_a_member_who_was_taken_off_gets_in_no_more(place: Place, people: People, browser: Browser, ada: str) -> None:
    log_in(browser, people, ada)
    assert browser.is_in
    place.platform.members.remove(OPERATOR, ada)
    assert not browser.is_in, "what was open is over at once"
    place.platform.members.add(OPERATOR, ada, Role.VIEWER)
    assert not browser.is_in, "also where they are let in again"
    place.platform.members.remove(OPERATOR, ada)
    browser.http.cookies.clear()
    refused(place, browser, log_in(browser, people, ada), "disabled")
    assert place.events(browser.source)[-1].detail["called"] == ada


def test_a_new_key_of_the_provider_is_learnt(place: Place, people: People, browser: Browser, ada: str) -> None:
    people.rotate_key()
    log_in(browser, people, ada)
    assert browser.is_in


def test_every_login_has_a_session_of_its_own(place: Place, people: People, browser: Browser, ada: str) -> None:
    browser.session = "given-by-somebody-else"
    log_in(browser, people, ada)
    first = browser.session
    assert first
    assert first != "given-by-somebody-else"
    log_in(browser, people, ada)
    assert browser.session != first
    assert browser.is_in


def test_ids_of_sessions_are_nowhere_but_in_the_browser(
    place: Place, people: People, browser: Browser, ada: str, sql_store: SqlStore
) -> None:
    log_in(browser, people, ada)
    with sql_store.engine.connect() as db:
        rows = str(db.execute(sa.select(t.session)).all()) + str(db.execute(sa.select(t.pending_login)).all())
    assert digest_of(browser.session) in rows
    assert browser.session not in rows
    assert browser.session not in str(place.register())
    assert browser.session not in browser.get("/account").text


def test_logging_out_ends_this_session_and_no_other(place: Place, people: People, browser: Browser, ada: str) -> None:
    with Browser(place.url) as other:
        log_in(other, people, ada)
        log_in(browser, people, ada)
        session = browser.session
        browser.post("/logout")
        assert not browser.session
        browser.session = session
        assert not browser.is_in, "also for whoever kept the cookie"
        assert other.is_in
        assert kinds(place, browser)[-1] == "login.ended"


def test_logging_out_everywhere(place: Place, people: People, browser: Browser, ada: str) -> None:
    with Browser(place.url) as second, Browser(place.url) as third, Browser(place.url) as stranger:
        for one in (browser, second, third):
            log_in(one, people, ada)
        grace = f"grace-{uuid4().hex[:8]}"
        people.add(grace)
        log_in(stranger, people, grace)
        assert browser.get("/account").text.count("Browser of the tests") == 3
        assert browser.post("/account/logout-everywhere").headers["location"] == "/login"
        assert [one.is_in for one in (browser, second, third, stranger)] == [False, False, False, True]
        ended = place.events(browser.source)[-1]
        assert (ended.kind, ended.detail) == ("login.ended", {"of": ada, "sessions": 3})


def test_an_admin_logs_somebody_out_everywhere(place: Place, people: People, browser: Browser, ada: str) -> None:
    admin = place.platform.tokens.create(OPERATOR, NewToken(name=f"m{uuid4().hex[:8]}", role=Role.ADMIN))
    viewer = place.platform.tokens.create(OPERATOR, NewToken(name=f"m{uuid4().hex[:8]}", role=Role.VIEWER))
    log_in(browser, people, ada)

    def end(token: str, name: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.delete(f"{place.url}/api/v1/sessions/{name}", headers=headers, trust_env=False)

    assert end(viewer.token, ada).status_code == 403
    assert browser.is_in
    assert end(admin.token, "nobody-of-that-name").json()["code"] == "unknown_member"
    assert end(admin.token, ada).json() == {"sessions": 1}
    assert not browser.is_in


def test_sessions_end_by_themselves(
    place: Place, people: People, browser: Browser, ada: str, sql_store: SqlStore
) -> None:
    mine = t.session.c.digest == sa.bindparam("mine")
    for values in ({"expires_at": sa.func.now()}, {"last_seen_at": sa.func.now() - timedelta(hours=2, seconds=1)}):
        log_in(browser, people, ada)
        assert browser.is_in
        with sql_store.engine.begin() as db:
            assert db.execute(t.session.update().where(mine).values(values), {"mine": digest_of(browser.session)})
        assert not browser.is_in
    place.platform.sessions.prune()
    with sql_store.engine.connect() as db:
        owners = set(db.execute(sa.select(t.session.c.owner)).scalars())
    assert ada not in owners


def test_a_session_by_token_ends_with_the_token(place: Place, browser: Browser, people: People, ada: str) -> None:
    with Browser(place.url) as first:
        log_in(first, people, ada)
    place.platform.members.add(OPERATOR, ada, Role.VIEWER)
    made = place.platform.tokens.create(OPERATOR, NewToken(name="laptop", member=ada))
    browser.post("/login", token=made.token)
    account = browser.get("/account").text
    assert "session by token laptop" in account
    assert account.count("Browser of the tests") == 2, "it is the same person's"
    place.platform.tokens.revoke(OPERATOR, "laptop", ada)
    assert not browser.is_in
    with pytest.raises(Unauthenticated):
        place.platform.sessions.authenticate(browser.session, "")


@pytest.fixture(scope="module")
def strange(home_layout: Layout, sql_store: SqlStore) -> Iterator[tuple[Place, FakeOidc, FakeGitHub]]:
    """A platform with providers that can be told to say anything."""
    with FakeOidc() as oidc, FakeGitHub() as github:

        def settings(url: str) -> Settings:
            return Settings(
                home=home_layout.home,
                public_url=url,
                oidc_issuer=oidc.url,
                oidc_client_id=CLIENT,
                oidc_client_secret=SECRET,  # type: ignore[arg-type]
                github_url=github.url,
                github_client_id=CLIENT,
                github_client_secret=SECRET,  # type: ignore[arg-type]
            )

        with platform_at(settings) as place:
            yield place, oidc, github


@pytest.mark.parametrize("wrong", ["nonce", "key", "none"])
def test_id_tokens_that_cannot_be_believed(strange: tuple[Place, FakeOidc, FakeGitHub], wrong: str) -> None:
    place, oidc, _ = strange
    oidc.claims = {"nonce": "another"} if wrong == "nonce" else {}
    oidc.forge = {"key": lambda claims: oidc.sign(claims, another_key()), "none": unsigned}.get(wrong)
    with Browser(place.url) as browser:
        address = browser.go_to_provider()
        state = re.search(r"state=([^&]*)", address)
        assert state
        answer = browser.arrive(f"{place.url}/login/oidc/callback?code={oidc.log_in(address)}&state={state[1]}")
        refused(place, browser, answer, "bad_id_token")


def test_a_provider_that_is_away_is_nobodys_fault_here(strange: tuple[Place, FakeOidc, FakeGitHub]) -> None:
    place, oidc, _ = strange
    with Browser(place.url) as browser:
        address = browser.go_to_provider()
        state = re.search(r"state=([^&]*)", address)
        assert state
        code = oidc.log_in(address)
        oidc.broken["/token"] = 503
        answer = browser.arrive(f"{place.url}/login/oidc/callback?code={code}&state={state[1]}")
        del oidc.broken["/token"]
        refused(place, browser, answer, "provider_broke", 503)
        assert 'name="token"' in answer.text, "with a token one gets in nevertheless"


def test_github_is_a_provider_like_others(strange: tuple[Place, FakeOidc, FakeGitHub]) -> None:
    place, _, github = strange
    github.user = {"id": 4711, "login": f"octo-{uuid4().hex[:8]}"}
    place.platform.members.add(OPERATOR, "github:github/justice-league", Role.MAINTAINER, group=True)
    place.platform.members.add(OPERATOR, "github/justice-league", Role.ADMIN, group=True)  # of the other provider
    with Browser(place.url) as browser:
        address = browser.go_to_provider(provider="github")
        state = re.search(r"state=([^&]*)", address)
        assert state
        code = github.log_in(address)
        mixed_up = browser.arrive(f"{place.url}/login/oidc/callback?code={code}&state={state[1]}")
        assert mixed_up.status_code == 403, "the answer of one provider is none of the other's"
    with Browser(place.url) as browser:
        address = browser.go_to_provider(provider="github")
        state = re.search(r"state=([^&]*)", address)
        assert state
        browser.arrive(f"{place.url}/login/github/callback?code={github.log_in(address)}&state={state[1]}")
        account = browser.get("/account").text
        assert f"GitHub {github.url}" in account
        assert "maintainer everywhere" in account
