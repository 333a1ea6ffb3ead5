"""Logins by OpenID Connect: authorization code with PKCE, and ID tokens that are verified in full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from branchline.adapters.id_tokens import IdTokens, challenge
from branchline.adapters.provider_http import ProviderHttp
from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke, Refused
from branchline.ports.logins import Attempt, Person

FRESH_SECONDS = 3600.0
"""How long what the provider says of itself counts before it is asked again."""

STALE_SECONDS = 24 * 3600.0
"""How long it counts where the provider does not answer when it is asked again."""

AWAY_SECONDS = 5.0
"""How long a provider that did not answer is not asked again: else all who want to log in wait in turn."""

_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True)
class OidcClient:
    """What we are at the provider. Without a secret it is a public client: PKCE proves that it was us who asked."""

    issuer: str
    id: str
    secret: Callable[[], Secret | None]
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    groups_claim: str = "groups"
    name_claim: str = "preferred_username"


@dataclass
class _Known:
    """What the provider said of itself, and when."""

    document: Mapping[str, Any] = field(default_factory=dict)
    at: float = -STALE_SECONDS
    failure: PlatformBroke | None = None
    failed_at: float = -AWAY_SECONDS


class OidcProvider:
    """Port `LoginProvider` for any provider that has a discovery document. Safe to share between threads."""

    id = "oidc"

    def __init__(self, client: OidcClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._http = ProviderHttp(client.issuer, self.title)
        self._known = _Known()
        self._lock = threading.Lock()
        self._tokens = IdTokens(
            client.issuer, client.id, lambda: self._http.document(self._http.get(self._endpoint("jwks_uri"))), clock
        )

    @property
    def title(self) -> str:
        """The host of the issuer."""
        return urlsplit(self._client.issuer).netloc

    def address(self, attempt: Attempt) -> str:
        """Where the browser has to go. Raises PlatformBroke (`provider_unreachable`, `provider_broke`)."""
        query = {
            "response_type": "code",
            "client_id": self._client.id,
            "redirect_uri": attempt.redirect_uri,
            "scope": " ".join(self._client.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def identify(self, attempt: Attempt, code: str) -> Person:
        """Who came back with this code; raises what the port says."""
        answer = self._exchange(attempt, code)
        access = str(answer.get("access_token") or "")
        claims = self._tokens.verified(str(answer.get("id_token") or ""), attempt.nonce, access)
        besides = self._userinfo(access, claims) if self._lacks_something(claims) and access else {}
        told = {**besides, **claims}
        name = _text(told, self._client.name_claim) or _text(told, "name") or _text(told, "email") or claims["sub"]
        one = besides.get("email", told.get("email")) == told.get("email")  # whichever of two was verified, who knows
        email = _text(told, "email") if one and told.get("email_verified") is True else ""
        return Person(self._client.issuer, claims["sub"], name, email, _groups(told.get(self._client.groups_claim)))

    def _exchange(self, attempt: Attempt, code: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier.reveal(),
        }
        auth, secret = None, self._client.secret()
        if secret is not None and self._takes("client_secret_basic"):
            # RFC 6749 has both encoded as form fields first; httpx does not
            auth = (_form_encoded(self._client.id), _form_encoded(secret.reveal()))
        elif secret is not None:
            form |= {"client_id": self._client.id, "client_secret": secret.reveal()}
        else:
            form["client_id"] = self._client.id
        answer = self._http.post(self._endpoint("token_endpoint"), form, auth)
        if answer.status_code == 200:
            return self._http.document(answer)
        error = _error_of(answer)
        if error in {"invalid_client", "unauthorized_client"}:
            raise PlatformBroke(
                f"{self.title} does not take the platform for the client that it says it is ({error}).",
                code="provider_broke",
                hint="Whoever runs the platform looks at `oidc_client_id` and the client's secret.",
            )
        raise Refused(
            f"{self.title} does not take the code that it sent you with ({error or answer.status_code}).",
            code="code_refused",
            hint="Log in anew: a code is good once, and for a short while.",
        )

    def _takes(self, method: str) -> bool:
        offered = self._document().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return method in offered or not any(one in offered for one in _AUTH_METHODS)

    def _lacks_something(self, claims: Mapping[str, Any]) -> bool:
        wanted = {self._client.groups_claim, self._client.name_claim, "email"} - {""}
        return not wanted <= claims.keys() and "userinfo_endpoint" in self._document()

    def _userinfo(self, access: str, claims: Mapping[str, Any]) -> dict[str, Any]:
        told = self._http.document(self._http.get(self._endpoint("userinfo_endpoint"), bearer=access))
        if told.get("sub") != claims["sub"]:  # OpenID Connect Core, 5.3.2: else it may be somebody else's
            raise Refused(
                f"{self.title} speaks of two people in one login.",
                code="bad_id_token",
                hint="Log in anew. If it stays, tell whoever runs that provider.",
            )
        return told

    def _endpoint(self, name: str) -> str:
        found = self._document().get(name)
        if not isinstance(found, str) or not found.startswith(("https://", "http://")):
            raise self._http.broke(f"names no {name} in its discovery document")
        if found.startswith("http://") and self._client.issuer.startswith("https://"):
            raise self._http.broke(f"names a {name} without https in its discovery document")
        return found

    def _document(self) -> Mapping[str, Any]:
        with self._lock:
            known = self._known
            age = self._clock() - known.at
            if age < FRESH_SECONDS:
                return known.document
            if known.failure is None or self._clock() - known.failed_at >= AWAY_SECONDS:
                try:
                    found = self._discovered()
                except PlatformBroke as error:
                    known.failure, known.failed_at = error, self._clock()
                else:
                    self._known = _Known(found, self._clock())
                    return found
            if age < STALE_SECONDS:
                return known.document
            raise PlatformBroke(known.failure.sentence, code=known.failure.code, hint=known.failure.hint)

    def _discovered(self) -> Mapping[str, Any]:
        url = f"{self._client.issuer.rstrip('/')}/.well-known/openid-configuration"
        document = self._http.document(self._http.get(url))
        if document.get("issuer") != self._client.issuer:
            raise self._http.broke("calls itself otherwise than `oidc_issuer` does in its discovery document")
        return document


def _error_of(answer: Any) -> str:
    """The error code of OAuth, where there is one: a word of a known alphabet."""
    try:
        error = answer.json().get("error")
    except (ValueError, AttributeError):
        return ""
    return error if isinstance(error, str) and error.replace("_", "").isalpha() and len(error) < 60 else ""


def _form_encoded(text: str) -> str:
    return urlencode({"": text})[1:]


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value.strip() if isinstance(value, str) and value.isprintable() else ""


def _groups(found: Any) -> tuple[str, ...]:
    """The groups of a claim: a list of names, or one name."""
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(sorted({name for name in names if isinstance(name, str) and name and name.isprintable()}))
