"""Providers of identities: who vouches for people that log in with a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from branchline.domain.config import Secret


@dataclass(frozen=True)
class Person:
    """Who a provider says somebody is. `email` is empty where the provider does not vouch for it."""

    issuer: str
    subject: str
    name: str
    email: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """What ties an answer of the provider to the browser that it was asked for: each value is good for one login.

    `state` goes through the address bar, `nonce` into the ID token, `verifier` proves at the token endpoint that it was
    we who asked (PKCE). `redirect_uri` is where the provider sends the browser back to.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: Secret
    redirect_uri: str


class LoginProvider(Protocol):
    """Somebody who knows people and sends their browsers back with a code."""

    @property
    def id(self) -> str:
        """How it is called in addresses and in the register: `oidc`, `github`."""

    @property
    def title(self) -> str:
        """How people know it."""

    def address(self, attempt: Attempt) -> str:
        """Where the browser has to go. Raises PlatformBroke (`provider_unreachable`, `provider_broke`)."""

    def identify(self, attempt: Attempt, code: str) -> Person:
        """Who came back with this code.

        Raises Refused: `code_refused` where the provider does not take the code, `bad_id_token` where what it says
        cannot be believed; and PlatformBroke as `address` does.
        """
