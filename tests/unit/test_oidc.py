"""Logins by OpenID Connect against a provider by hand: what is asked, what is believed, what is not."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from branchline.adapters.oidc import AWAY_SECONDS, FRESH_SECONDS, STALE_SECONDS, OidcClient, OidcProvider
from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke, Refused
from branchline.ports.logins import Attempt, Person
from tests.fakes.providers import (
    CLIENT,
    SECRET,
    FakeOidc,
    another_key,
    curve_key,
    query_of,
    s256,
    signed_with_what_is_public,
    unsigned,
)

ATTEMPT = Attempt("the-state", "the-nonce", Secret("v" * 43), "http://localhost/login/oidc/callback")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def there() -> Iterator[FakeOidc]:
    with FakeOidc() as provider:
        yield provider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def here(there: FakeOidc, clock: Clock) -> OidcProvider:
    return provider(there, clock)


def provider(there: FakeOidc, clock: Clock | None = None, secret: str | None = SECRET, **more: Any) -> OidcProvider:
    client = OidcClient(there.url, CLIENT, lambda: None if secret is None else Secret(secret), **more)
    return OidcProvider(client, clock or Clock())


def identified(here: OidcProvider, there: FakeOidc, attempt: Attempt = ATTEMPT) -> Person:
    return here.identify(attempt, there.log_in(here.address(attempt)))


def test_the_browser_is_sent_off_with_everything_that_ties_the_answer_to_it(
    here: OidcProvider, there: FakeOidc
) -> None:
    address = here.address(ATTEMPT)
    assert address.startswith(f"{there.url}/authorize?")
    assert query_of(address) == {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": ATTEMPT.redirect_uri,
        "scope": "openid profile email",
        "state": "the-state",
        "nonce": "the-nonce",
        "code_challenge": s256("v" * 43),
        "code_challenge_method": "S256",
    }


def test_an_endpoint_may_have_a_query_of_its_own(here: OidcProvider, there: FakeOidc) -> None:
    there.documented = {"authorization_endpoint": f"{there.url}/authorize?tenant=a"}
    assert query_of(here.address(ATTEMPT))["tenant"] == "a"


def test_who_it_is(here: OidcProvider, there: FakeOidc) -> None:
    there.claims = {
        "preferred_username": "ada",
        "email": "ada@example.com",
        "email_verified": True,
        "groups": ["b", "a"],
    }
    assert identified(here, there) == Person(there.url, "ada-1", "ada", "ada@example.com", ("a", "b"))
    assert "/userinfo" not in there.asked, "the token said it all"


def test_what_the_token_lacks_is_asked_for(here: OidcProvider, there: FakeOidc) -> None:
    there.userinfo |= {"preferred_username": "ada", "groups": "staff"}
    assert identified(here, there) == Person(there.url, "ada-1", "ada", "ada@example.com", ("staff",))


def test_somebody_elses_userinfo_is_not_believed(here: OidcProvider, there: FakeOidc) -> None:
    there.userinfo["sub"] = "grace-1"
    with pytest.raises(Refused) as caught:
        identified(here, there)
    assert caught.value.code == "bad_id_token"


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_nobody_vouches_for_counts_for_nothing(
    here: OidcProvider, there: FakeOidc, verified: object
) -> None:
    there.claims = {"email": "ada@example.com", "preferred_username": "ada", "groups": [], "email_verified": verified}
    assert identified(here, there).email == ""


def test_an_address_that_is_another_than_the_verified_one_counts_for_nothing(
    here: OidcProvider, there: FakeOidc
) -> None:
    there.claims = {"email": "boss@example.com", "preferred_username": "ada"}
    assert there.userinfo["email_verified"] is True
    assert identified(here, there).email == ""
    there.claims["email"] = there.userinfo["email"]
    assert identified(here, there).email == "ada@example.com"


def test_other_claims_may_name_people_and_groups(there: FakeOidc) -> None:
    there.claims = {"upn": "ada@corp", "roles": ["ops", 7, "", "a\nb", "ops"], "email": "x"}
    person = identified(provider(there, name_claim="upn", groups_claim="roles"), there)
    assert (person.name, person.groups) == ("ada@corp", ("ops",))


@pytest.mark.parametrize(
    ("methods", "auth"),
    [
        (None, "basic"),
        (["client_secret_post"], "post"),
        (["client_secret_post", "client_secret_basic"], "basic"),
        (["private_key_jwt"], "basic"),
    ],
)
def test_the_client_proves_itself_as_the_provider_wants(
    here: OidcProvider, there: FakeOidc, methods: list[str] | None, auth: str
) -> None:
    there.auth_methods = methods
    identified(here, there)
    assert there.auth == auth


def test_a_public_client_has_no_secret(there: FakeOidc) -> None:
    there.secret = None
    assert identified(provider(there, secret=None), there).subject == "ada-1"
    assert there.auth == "none"


def test_a_wrong_secret_is_the_operators_matter(there: FakeOidc) -> None:
    with pytest.raises(PlatformBroke) as caught:
        identified(provider(there, secret="wrong"), there)
    assert caught.value.code == "provider_broke"
    assert "wrong" not in str(caught.value) + caught.value.hint


def test_a_code_is_good_once_and_only_with_its_verifier(here: OidcProvider, there: FakeOidc) -> None:
    code = there.log_in(here.address(ATTEMPT))
    here.identify(ATTEMPT, code)
    stolen = there.log_in(here.address(ATTEMPT))
    thief = Attempt("the-state", "the-nonce", Secret("w" * 43), ATTEMPT.redirect_uri)
    for attempt, one in ((ATTEMPT, code), (thief, stolen), (ATTEMPT, "made up")):
        with pytest.raises(Refused) as caught:
            here.identify(attempt, one)
        assert caught.value.code == "code_refused"


NOW = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"aud": None},
        {"aud": [CLIENT, "another"]},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"azp": "another"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"exp": NOW - 31},
        {"exp": None},
        {"exp": "soon"},
        {"iat": NOW + 86_400},
        {"iat": NOW - 3600},
        {"iat": None},
        {"nbf": NOW + 86_400},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ["the-nonce"]},
        {"at_hash": "another"},
        {"at_hash": ""},
    ],
    ids=str,
)
def test_tokens_that_say_something_wrong_are_not_believed(
    here: OidcProvider, there: FakeOidc, claims: dict[str, Any]
) -> None:
    there.claims = claims
    with pytest.raises(Refused) as caught:
        identified(here, there)
    assert caught.value.code == "bad_id_token"


def test_what_may_be_in_a_token_besides(here: OidcProvider, there: FakeOidc) -> None:
    half = hashlib.sha256(b"access-1").digest()[:16]
    there.claims = {
        "aud": [CLIENT, "another"],
        "azp": CLIENT,
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
        "exp": int(time.time()) - 5,
        "iat": int(time.time()) + 5,
    }
    assert identified(here, there).subject == "ada-1"


def test_tokens_that_somebody_else_signed_are_not_believed(here: OidcProvider, there: FakeOidc) -> None:
    forgeries = {
        "none": unsigned,
        "shared": signed_with_what_is_public(there),
        "another key": lambda claims: there.sign(claims, another_key()),
        "unknown key": lambda claims: there.sign(claims, another_key("two")),
        "another curve": lambda claims: there.sign(claims, curve_key("one"), "ES256"),
        "cut": lambda claims: there.sign(claims)[:-8],
        "none at all": lambda _: "",
        "no token": lambda _: "a.b.c",
    }
    for name, forge in forgeries.items():
        there.forge = forge
        with pytest.raises(Refused) as caught:
            identified(here, there)
        assert caught.value.code == "bad_id_token", name


def test_a_shared_key_among_the_published_ones_signs_nothing(here: OidcProvider, there: FakeOidc) -> None:
    from joserfc import jwt
    from joserfc.jwk import OctKey

    key = OctKey.generate_key(256, {"kid": "shared"})
    there.others = [key.as_dict(private=True)]
    there.forge = lambda claims: jwt.encode({"alg": "HS256", "kid": "shared"}, claims, key, algorithms=["HS256"])
    with pytest.raises(Refused):
        identified(here, there)


def test_new_keys_are_fetched_when_one_is_used(here: OidcProvider, there: FakeOidc, clock: Clock) -> None:
    identified(here, there)
    there.keys.keys[0] = another_key("two")
    clock.now += 11
    assert identified(here, there).subject == "ada-1"
    assert there.asked.count("/jwks") == 2


def test_made_up_key_ids_do_not_have_the_keys_fetched_all_the_time(
    here: OidcProvider, there: FakeOidc, clock: Clock
) -> None:
    identified(here, there)
    there.forge = lambda claims: there.sign(claims, another_key("two"))
    clock.now += 11
    for _ in range(3):
        with pytest.raises(Refused):
            identified(here, there)
    assert there.asked.count("/jwks") == 2


def test_what_the_provider_says_of_itself_is_asked_for_once_an_hour(
    here: OidcProvider, there: FakeOidc, clock: Clock
) -> None:
    path = "/.well-known/openid-configuration"
    for _ in range(3):
        here.address(ATTEMPT)
    assert there.asked.count(path) == 1
    clock.now += FRESH_SECONDS + 1
    here.address(ATTEMPT)
    assert there.asked.count(path) == 2
    there.broken[path] = 503
    clock.now += FRESH_SECONDS + 1
    here.address(ATTEMPT)  # for a day, what it said last will do
    clock.now += STALE_SECONDS
    with pytest.raises(PlatformBroke) as caught:
        here.address(ATTEMPT)
    assert (caught.value.code, bool(caught.value.hint)) == ("provider_broke", True)


def test_a_provider_that_is_away_is_not_asked_by_everybody_in_turn(
    here: OidcProvider, there: FakeOidc, clock: Clock
) -> None:
    path = "/.well-known/openid-configuration"
    there.broken[path] = 503
    for _ in range(5):
        with pytest.raises(PlatformBroke) as caught:
            here.address(ATTEMPT)
        assert (caught.value.code, bool(caught.value.hint)) == ("provider_broke", True)
    assert there.asked.count(path) == 1
    del there.broken[path]
    clock.now += AWAY_SECONDS
    assert here.address(ATTEMPT)


def test_a_provider_that_is_away_is_told_as_such(there: FakeOidc) -> None:
    away = OidcProvider(OidcClient("http://127.0.0.1:1", CLIENT, lambda: None))
    with pytest.raises(PlatformBroke) as caught:
        away.address(ATTEMPT)
    assert (caught.value.code, bool(caught.value.hint)) == ("provider_unreachable", True)


@pytest.mark.parametrize("path", ["/token", "/jwks", "/userinfo"])
def test_a_provider_that_breaks_in_the_midst_is_told_as_such(here: OidcProvider, there: FakeOidc, path: str) -> None:
    code = there.log_in(here.address(ATTEMPT))
    there.broken[path] = 500
    with pytest.raises(PlatformBroke) as caught:
        here.identify(ATTEMPT, code)
    assert caught.value.code == "provider_broke"


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": 7},
    ],
)
def test_what_a_provider_must_not_say_of_itself(here: OidcProvider, there: FakeOidc, said: dict[str, Any]) -> None:
    there.documented = said
    with pytest.raises(PlatformBroke) as caught:
        identified(here, there)
    assert caught.value.code == "provider_broke"


def test_an_answer_that_never_ends_is_cut(here: OidcProvider, there: FakeOidc) -> None:
    there.documented = {"filler": "x" * 1_100_000}
    with pytest.raises(PlatformBroke) as caught:
        here.address(ATTEMPT)
    assert "1 MiB" in caught.value.sentence
