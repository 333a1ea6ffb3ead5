"""Logins by GitHub, which speaks OAuth 2 but no OpenID Connect: who somebody is has to be asked at its API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from branchline.adapters.id_tokens import challenge
from branchline.adapters.provider_http import ProviderHttp
from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke, Refused
from branchline.ports.logins import Attempt, Person

SCOPES = "read:user user:email read:org"
"""The least with which GitHub tells e-mail addresses, organizations and teams. None of them can change anything."""

_API = {"Accept": "application/vnd.github+json, application/json;q=0.9", "X-GitHub-Api-Version": "2022-11-28"}
_PAGE = 100
_MOST_PAGES = 20


class GitHubLogin:
    """Port `LoginProvider` on GitHub or GitHub Enterprise. Groups are `org` and `org/team`."""

    id = "github"

    def __init__(self, url: str, client_id: str, secret: Callable[[], Secret | None]) -> None:
        self._url = url.rstrip("/")
        self._client_id = client_id
        self._secret = secret
        self._http = ProviderHttp(self._url, self.title)

    @property
    def title(self) -> str:
        """GitHub, or the host of an Enterprise server."""
        host = urlsplit(self._url).netloc
        return "GitHub" if host == "github.com" else host

    @property
    def api(self) -> str:
        """Where its API lies: on a host of its own, or below the server's address on one's own server."""
        parts = urlsplit(self._url)
        if parts.netloc == "github.com" or parts.netloc.endswith(".ghe.com"):
            return f"{parts.scheme}://api.{parts.netloc}"
        return f"{self._url}/api/v3"

    def address(self, attempt: Attempt) -> str:
        """Where the browser has to go."""
        query = {
            "client_id": self._client_id,
            "redirect_uri": attempt.redirect_uri,
            "scope": SCOPES,
            "state": attempt.state,
            "code_challenge": challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        return f"{self._url}/login/oauth/authorize?{urlencode(query)}"

    def identify(self, attempt: Attempt, code: str) -> Person:
        """Who came back with this code; raises what the port says."""
        access = self._exchange(attempt, code)
        user = self._http.document(self._get("/user", access))
        number, login = user.get("id"), user.get("login")
        if not isinstance(number, int) or not isinstance(login, str) or not login:
            raise self._http.broke("does not say who you are")
        groups = {str(one["login"]) for one in self._pages("/user/orgs", access)}
        # a member of a team may hide the membership of its organization, and is one nevertheless
        for team in self._pages("/user/teams", access):
            organization = str(team["organization"]["login"])
            groups |= {organization, f"{organization}/{team['slug']}"}
        # the login may be given to somebody else one day, the number never
        return Person(self._url, str(number), login, self._email(access), tuple(sorted(groups)))

    def _exchange(self, attempt: Attempt, code: str) -> str:
        secret = self._secret()
        form = {
            "client_id": self._client_id,
            "client_secret": secret.reveal() if secret else "",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier.reveal(),
        }
        answer = self._http.document(self._http.post(f"{self._url}/login/oauth/access_token", form))
        # refusals come with status 200 as well
        if (error := answer.get("error")) in {"bad_verification_code", "unverified_user_email"}:
            raise Refused(
                f"{self.title} does not take the code that it sent you with ({error}).",
                code="code_refused",
                hint="Log in anew: a code is good once, and for ten minutes. Your e-mail must be verified there.",
            )
        token = answer.get("access_token")
        if error or not isinstance(token, str) or not token:
            word = error if isinstance(error, str) and error.replace("_", "").isalpha() else "no token"
            raise PlatformBroke(
                f"{self.title} does not take the platform for the application that it says it is ({word}).",
                code="provider_broke",
                hint="Whoever runs the platform looks at `github_client_id`, the client's secret and the callback URL.",
            )
        return token

    def _email(self, access: str) -> str:
        """The primary address, where GitHub has verified that it is theirs."""
        for one in self._pages("/user/emails", access):
            if one.get("primary") is True and one.get("verified") is True and isinstance(one.get("email"), str):
                return str(one["email"])
        return ""

    def _pages(self, path: str, access: str) -> Iterator[dict[str, Any]]:
        for page in range(1, _MOST_PAGES + 1):
            answer = self._get(f"{path}?per_page={_PAGE}&page={page}", access)
            try:
                found = answer.json()
            except ValueError:
                found = None
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise self._http.broke(f"answered {path} with something that is no list")
            yield from found
            if 'rel="next"' not in answer.headers.get("link", ""):
                return

    def _get(self, path: str, access: str) -> httpx.Response:
        return self._http.get(f"{self.api}{path}", bearer=access, headers=_API)
