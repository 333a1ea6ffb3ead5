"""Logins by GitHub, against a server by hand that answers as GitHub's documentation says: it cannot be reached here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from branchline.adapters.github_login import GitHubLogin
from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke, Refused
from branchline.ports.logins import Attempt, Person
from tests.fakes.providers import CLIENT, SECRET, FakeGitHub, query_of, s256

ATTEMPT = Attempt("the-state", "the-nonce", Secret("v" * 43), "http://localhost/login/github/callback")


@pytest.fixture
def there() -> Iterator[FakeGitHub]:
    with FakeGitHub() as provider:
        yield provider


@pytest.fixture
def here(there: FakeGitHub) -> GitHubLogin:
    return GitHubLogin(there.url, CLIENT, lambda: Secret(SECRET))


def identified(here: GitHubLogin, there: FakeGitHub) -> Person:
    return here.identify(ATTEMPT, there.log_in(here.address(ATTEMPT)))


def test_the_browser_is_sent_off_with_state_and_challenge(here: GitHubLogin) -> None:
    asked = query_of(here.address(ATTEMPT))
    assert asked == {
        "client_id": CLIENT,
        "redirect_uri": ATTEMPT.redirect_uri,
        "scope": "read:user user:email read:org",
        "state": "the-state",
        "code_challenge": s256("v" * 43),
        "code_challenge_method": "S256",
    }


def test_who_it_is(here: GitHubLogin, there: FakeGitHub) -> None:
    groups = ("github", "github/justice-league", "hidden", "hidden/ops")
    assert identified(here, there) == Person(there.url, "583231", "octocat", "octocat@example.com", groups)


@pytest.mark.parametrize(
    "emails",
    [
        [{"email": "octocat@example.com", "primary": True, "verified": False}],
        [{"email": "octocat@example.com", "primary": False, "verified": True}],
        [],
    ],
)
def test_only_a_primary_address_that_was_verified_counts(
    here: GitHubLogin, there: FakeGitHub, emails: list[dict[str, object]]
) -> None:
    there.emails = emails
    assert identified(here, there).email == ""


def test_whoever_is_in_very_many_teams_is_in_all_of_them(here: GitHubLogin, there: FakeGitHub) -> None:
    there.teams = [("github", f"team-{number}") for number in range(250)]
    assert len(identified(here, there).groups) == 251


def test_a_code_is_good_once(here: GitHubLogin, there: FakeGitHub) -> None:
    code = there.log_in(here.address(ATTEMPT))
    here.identify(ATTEMPT, code)
    with pytest.raises(Refused) as caught:
        here.identify(ATTEMPT, code)
    assert caught.value.code == "code_refused"


def test_a_wrong_secret_is_the_operators_matter(there: FakeGitHub) -> None:
    here = GitHubLogin(there.url, CLIENT, lambda: Secret("wrong"))
    with pytest.raises(PlatformBroke) as caught:
        identified(here, there)
    assert caught.value.code == "provider_broke"
    assert "incorrect_client_credentials" in caught.value.sentence


@pytest.mark.parametrize("path", ["/user", "/user/orgs", "/user/teams", "/user/emails"])
def test_what_is_not_told_is_not_made_up(here: GitHubLogin, there: FakeGitHub, path: str) -> None:
    there.broken[f"/api/v3{path}"] = 403
    with pytest.raises(PlatformBroke) as caught:
        identified(here, there)
    assert caught.value.code == "provider_broke"


def test_github_away(there: FakeGitHub) -> None:
    with pytest.raises(PlatformBroke) as caught:
        GitHubLogin("http://127.0.0.1:1", CLIENT, lambda: Secret(SECRET)).identify(ATTEMPT, "code")
    assert caught.value.code == "provider_unreachable"


@pytest.mark.parametrize(
    ("url", "api", "title"),
    [
        ("https://github.com", "https://api.github.com", "GitHub"),
        ("https://octo.ghe.com", "https://api.octo.ghe.com", "octo.ghe.com"),
        ("https://git.example.com/", "https://git.example.com/api/v3", "git.example.com"),
    ],
)
def test_where_the_api_lies(url: str, api: str, title: str) -> None:
    here = GitHubLogin(url, CLIENT, lambda: None)
    assert (here.api, here.title) == (api, title)
