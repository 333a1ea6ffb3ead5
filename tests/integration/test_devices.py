"""The command line is let in from a browser: on the real server, its real tables, and OpenBao as the provider."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from branchline.domain.access import Permission, Role
from branchline.layout import Layout
from branchline.operations.tokens import digest_of
from branchline.settings import Settings
from branchline.stack.openbao import OpenBao
from branchline.store import login_tables as t
from branchline.store.database import SqlStore
from branchline.wire_logins import DeviceCodes
from branchline.wire_people import NewToken
from tests.integration.people_at import OPERATOR, Browser, Place, platform_at
from tests.integration.test_cli import Person, screen
from tests.openbao_people import People

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def both(home_layout: Layout, openbao: OpenBao, sql_store: SqlStore) -> Iterator[tuple[Place, People]]:
    """A platform whose people are in OpenBao, for which it is a client without a secret."""
    made: list[People] = []

    def settings(url: str) -> Settings:
        callback = f"{url}/login/oidc/callback"
        made.append(People(openbao.endpoint, home_layout, f"p{uuid4().hex[:8]}", callback, public=True))
        return Settings(
            home=home_layout.home,
            public_url=url,
            oidc_issuer=made[0].issuer,
            oidc_client_id=made[0].client_id,
            oidc_scopes="profile groups",
        )

    with platform_at(settings) as place:
        yield place, made[0]


@pytest.fixture
def place(both: tuple[Place, People]) -> Place:
    return both[0]


@pytest.fixture
def ada(both: tuple[Place, People]) -> str:
    """Somebody who may read everything, called otherwise in each test."""
    name = f"ada-{uuid4().hex[:8]}"
    both[1].add(name, f"readers-{name}")
    both[0].platform.members.add(OPERATOR, f"readers-{name}", Role.VIEWER, group=True)
    return name


@pytest.fixture
def browser(both: tuple[Place, People], ada: str) -> Iterator[Browser]:
    """A browser in which she is logged in."""
    place, people = both
    with Browser(place.url) as made:
        made.arrive(people.log_in(made.go_to_provider(), ada))
        assert made.is_in
        yield made


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"HOME": str(tmp_path), "BRANCHLINE_HOME": str(tmp_path / "none"), "TERM": "xterm-256color"}


class Device:
    """Whatever wants to be let in, at an address of its own."""

    def __init__(self, place: Place, host: str = "laptop") -> None:
        self._url = f"{place.url}/api/v1"
        self._headers = {"X-Forwarded-For": f"172.16.{uuid4().int % 250}.{uuid4().int % 250}"}
        answer = self._post("/device", {"client": "branchline 9", "host": host})
        assert answer.status_code == 200
        self.codes = DeviceCodes.model_validate(answer.json())

    def _post(self, path: str, body: dict[str, str]) -> httpx.Response:
        return httpx.post(self._url + path, json=body, headers=self._headers, trust_env=False, timeout=20)

    def poll(self) -> httpx.Response:
        return self._post("/device/token", {"device_code": self.codes.device_code})

    def told(self) -> str:
        """The code of what it is told."""
        answer = self.poll()
        assert answer.status_code == 400
        return str(answer.json()["code"])

    def patient(self, store: SqlStore) -> Device:
        """As if it had waited as it should."""
        with store.engine.begin() as db:
            mine = t.device_login.c.device_digest == digest_of(self.codes.device_code)
            db.execute(t.device_login.update().where(mine).values(polled_at=None, slowed_by=0))
        return self


def test_the_real_command_line_is_let_in(
    both: tuple[Place, People], place: Place, ada: str, environ: dict[str, str]
) -> None:
    person = Person(environ, place.url)
    for name in ("BRANCHLINE_URL", "BRANCHLINE_TOKEN"):
        del person.environ[name]
    shown: list[str] = []

    def confirm(_terminal: int, written: bytes) -> None:
        """What ada does, sitting in front of it: opens the page, logs in on the way, compares, confirms."""
        found = re.search(rb"open (\S+/device\?code=([A-Z]{4}-[A-Z]{4})) and", written)
        if not found or shown:
            return
        shown.append(found[2].decode())
        with Browser(place.url) as browser:
            asked = found[1].decode().removeprefix(place.url)
            sent = browser.get(asked)
            assert sent.headers["location"] == f"/login?then=/device%3Fcode%3D{shown[0]}"
            link = re.search(r'href="(/login/oidc[^"]*)"', browser.get(sent.headers["location"]).text)
            assert link
            address = browser.get(link[1]).headers["location"]
            back = browser.arrive(both[1].log_in(address, ada))
            assert f"url=/device?code={shown[0]}" in back.text
            page = browser.get(asked).text
            assert shown[0] in page
            assert "127.0.0.1" in page
            done = browser.post("/device", code=shown[0], decision="let-in")
            assert "is let in" in done.text

    status, written = screen(person, "login", place.url, act=confirm)
    assert status == 0, written
    assert f"Logged in to {place.url} as {ada} (viewer everywhere)" in written
    stored = json.loads((Path(environ["HOME"]) / ".config/branchline/credentials.json").read_text())
    assert stored["token"] not in written
    me = person.reads("whoami")
    assert isinstance(me, dict)
    assert (me["name"], me["roles"]) == (ada, {"*": "viewer"})
    assert me["proof"].startswith("token cli-")
    assert me["until"]
    mine = [one for one in place.platform.tokens.list(OPERATOR) if one.member == ada]
    assert [one.name for one in mine] == [me["proof"].removeprefix("token ")]
    assert mine[0].expires_at is not None
    out = person.runs("logout", "--everywhere")
    assert (out.returncode, "Logged out of 1 browser." in out.stdout) == (0, True), out.stderr
    assert not (Path(environ["HOME"]) / ".config/branchline/credentials.json").exists()
    assert [one for one in place.platform.tokens.list(OPERATOR) if one.member == ada] == []
    assert person.runs("whoami").returncode == 3
    assert person.runs("logout").returncode == 3


def test_the_codes(place: Place) -> None:
    codes = Device(place).codes
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", codes.user_code)
    assert len(codes.device_code) >= 43
    assert (codes.expires_in, codes.interval) == (600, 5)
    assert codes.verification_uri == f"{place.url}/device"
    assert codes.verification_uri_complete == f"{place.url}/device?code={codes.user_code}"


def test_a_device_is_let_in_once(place: Place, browser: Browser, ada: str, sql_store: SqlStore) -> None:
    device = Device(place)
    assert device.told() == "authorization_pending"
    typed = device.codes.user_code.lower().replace("-", " ")
    page = browser.get(f"/device?code={typed}").text
    assert "laptop" in page
    assert "branchline 9" in page
    assert device.codes.user_code in page
    assert browser.post("/device", code=typed, decision="let-in").status_code == 200
    given = device.patient(sql_store).poll()
    assert given.status_code == 200
    assert given.json()["name"] == "cli-laptop"
    assert place.platform.tokens.authenticate(given.json()["token"]).name == ada
    assert device.told() == "expired_token"
    again = browser.post("/device", code=device.codes.user_code, decision="let-in")
    assert (again.status_code, "No device waits" in again.text) == (404, True)
    said = [one for one in place.events(browser.source) if one.detail.get("method") == "device"]
    assert [(one.kind, one.actor, one.detail["device"]) for one in said] == [("login.succeeded", ada, "laptop")]


def test_a_device_that_logs_in_again_gets_another_token_in_place_of_its_own(
    place: Place, browser: Browser, sql_store: SqlStore
) -> None:
    tokens = []
    for _ in range(2):
        device = Device(place)
        browser.post("/device", code=device.codes.user_code, decision="let-in")
        tokens.append(device.patient(sql_store).poll().json()["token"])
    assert place.platform.tokens.authenticate(tokens[1])
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    assert httpx.get(f"{place.url}/api/v1/whoami", headers=headers, trust_env=False).status_code == 401


def test_a_device_is_sent_away(place: Place, browser: Browser, sql_store: SqlStore) -> None:
    device = Device(place)
    assert "is sent away" in browser.post("/device", code=device.codes.user_code, decision="deny").text
    assert device.patient(sql_store).told() == "access_denied"
    assert device.told() == "expired_token"


def test_who_asks_too_often_is_told_to_slow_down(place: Place, browser: Browser) -> None:
    device = Device(place)
    assert [device.told() for _ in range(3)] == ["authorization_pending", "slow_down", "slow_down"]
    browser.post("/device", code=device.codes.user_code, decision="let-in")
    assert device.told() == "slow_down", "also when it was let in meanwhile"


def test_a_code_is_good_for_ten_minutes(place: Place, browser: Browser, sql_store: SqlStore) -> None:
    device = Device(place)
    with sql_store.engine.begin() as db:
        mine = t.device_login.c.device_digest == digest_of(device.codes.device_code)
        db.execute(t.device_login.update().where(mine).values(expires_at=sa.func.now()))
    assert browser.get(f"/device?code={device.codes.user_code}").status_code == 404
    assert browser.post("/device", code=device.codes.user_code, decision="let-in").status_code == 404
    assert device.told() == "expired_token"


def test_codes_are_nowhere_but_with_the_device(place: Place, sql_store: SqlStore) -> None:
    device = Device(place)
    with sql_store.engine.connect() as db:
        rows = str(db.execute(sa.select(t.device_login)).all())
    assert digest_of(device.codes.device_code) in rows
    assert device.codes.device_code not in rows
    assert device.codes.user_code.replace("-", "") not in rows


def test_another_site_lets_nobody_in(place: Place, browser: Browser, sql_store: SqlStore) -> None:
    device = Device(place)
    form = {"code": device.codes.user_code, "decision": "let-in"}
    for headers in ({"Origin": "https://evil.example"}, {}, {"Sec-Fetch-Site": "cross-site"}):
        assert browser.http.post("/device", data=form, headers=headers).status_code == 403
    assert device.patient(sql_store).told() == "authorization_pending"


def test_a_device_can_no_more_than_what_it_was_let_in_with(place: Place, ada: str, sql_store: SqlStore) -> None:
    permissions = [Permission.READ, Permission.OWN_TOKENS]
    with Browser(place.url) as first:
        place.platform.members.add(OPERATOR, ada, Role.ADMIN)
        made = place.platform.tokens.create(
            OPERATOR, NewToken(name="narrow", member=ada, permissions=permissions, days=1)
        )
        first.post("/login", token=made.token)
        device = Device(place)
        first.post("/device", code=device.codes.user_code, decision="let-in")
    given = device.patient(sql_store).poll().json()
    actor = place.platform.tokens.authenticate(given["token"])
    assert actor.scope.permissions == frozenset(permissions)
    assert actor.until == made.expires_at, "and no longer"


@pytest.mark.parametrize("who", ["machine", "token without the right to tokens"])
def test_who_lets_no_device_in(place: Place, ada: str, who: str) -> None:
    place.platform.members.add(OPERATOR, ada, Role.ADMIN)
    mine = {"role": Role.ADMIN} if who == "machine" else {"member": ada, "permissions": [Permission.READ]}
    made = place.platform.tokens.create(OPERATOR, NewToken(name=f"t{uuid4().hex[:8]}", **mine))
    device = Device(place)
    with Browser(place.url) as browser:
        browser.post("/login", token=made.token)
        answer = browser.post("/device", code=device.codes.user_code, decision="let-in")
        assert answer.status_code == 403
        assert browser.get(f"/device?code={device.codes.user_code}").status_code == 403
    assert device.told() == "authorization_pending"


def test_who_was_taken_off_meanwhile_lends_nothing(
    place: Place, browser: Browser, ada: str, sql_store: SqlStore
) -> None:
    device = Device(place)
    browser.post("/device", code=device.codes.user_code, decision="let-in")
    place.platform.members.add(OPERATOR, ada, Role.VIEWER)
    place.platform.members.remove(OPERATOR, ada)
    answer = device.patient(sql_store).poll()
    assert (answer.status_code, answer.json()["code"]) == (409, "disabled")


def test_what_lent_its_rights_and_was_revoked_lends_them_no_more(place: Place, ada: str, sql_store: SqlStore) -> None:
    place.platform.members.add(OPERATOR, ada, Role.VIEWER)
    made = place.platform.tokens.create(OPERATOR, NewToken(name="stolen", member=ada))
    device = Device(place)
    with Browser(place.url) as thief:
        thief.post("/login", token=made.token)
        assert thief.post("/device", code=device.codes.user_code, decision="let-in").status_code == 200
    place.platform.tokens.revoke(OPERATOR, "stolen", ada)
    answer = device.patient(sql_store).poll()
    assert (answer.status_code, answer.json()["code"]) == (403, "access_denied")
    assert [one for one in place.platform.tokens.list(OPERATOR) if one.member == ada] == []


def test_a_device_chooses_no_name_that_cannot_be_revoked(
    place: Place, browser: Browser, ada: str, sql_store: SqlStore
) -> None:
    given = {}
    for _ in range(2):
        device = Device(place, host="../a/b")
        browser.post("/device", code=device.codes.user_code, decision="let-in")
        given = device.patient(sql_store).poll().json()
    assert given["name"] == "cli-..-a-b"
    headers = {"Authorization": f"Bearer {given['token']}"}
    revoked = httpx.delete(f"{place.url}/api/v1/tokens/{given['name']}", headers=headers, trust_env=False)
    assert revoked.status_code == 204
    told = [one for one in place.register() if one.detail.get("member") == ada and "token" in one.detail]
    assert [one.kind for one in told] == ["token.created", "token.revoked", "token.created", "token.revoked"]


def test_codes_cannot_be_guessed_for_long(place: Place, browser: Browser) -> None:
    answers = [browser.get(f"/device?code=BCDF-{number:04}").status_code for number in range(21)]
    assert answers == [404] * 20 + [429]
    blocked = browser.post("/device", code="BCDF-BCDF", decision="let-in")
    assert (blocked.status_code, int(blocked.headers["retry-after"]) <= 60) == (429, True)
    with Browser(place.url) as other:
        assert other.get("/login").status_code == 200


def test_devices_ask_for_few_codes(place: Place) -> None:
    source = {"X-Forwarded-For": f"172.17.0.{uuid4().int % 250}"}
    body = {"client": "branchline 9", "host": "laptop"}

    def ask() -> httpx.Response:
        return httpx.post(f"{place.url}/api/v1/device", json=body, headers=source, trust_env=False)

    answers = [ask() for _ in range(11)]
    assert [one.status_code for one in answers] == [200] * 10 + [429]
    assert answers[-1].json()["code"] == "too_many_attempts"
    assert answers[-1].headers["retry-after"]


def test_a_name_that_would_fool_a_reader(place: Place, browser: Browser) -> None:
    hostile = {"client": "<script>alert(1)</script>", "host": "lap\x1b[31mtop\u202e"}
    made = httpx.post(f"{place.url}/api/v1/device", json=hostile, trust_env=False).json()
    page = browser.get(f"/device?code={made['user_code']}").text
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_the_offer(place: Place) -> None:
    offer = httpx.get(f"{place.url}/api/v1/login", trust_env=False).json()
    assert offer["device"] is True
    assert [one["id"] for one in offer["providers"]] == ["oidc"]
