"""Logins with a provider: a browser goes there, comes back with a code, and has a session then."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from branchline.domain.config import Secret
from branchline.domain.errors import BranchlineError, NotFound, PlatformBroke, Refused
from branchline.domain.names import RESERVED, alike, handle
from branchline.login_records import PendingLogin
from branchline.operations.failures import FailedLogins
from branchline.operations.sessions import Sessions
from branchline.operations.tokens import digest_of
from branchline.ports.logins import Attempt, LoginProvider, Person
from branchline.records import Store
from branchline.wire_logins import LoginMethod

PATIENCE = timedelta(minutes=10)
"""How long somebody may take at the provider."""

SECRET_BYTES = 32

OWN = "oidc"
"""The provider whose groups are called as it calls them: it is the company's own."""

PROOFS = {OWN: "OIDC", "github": "GitHub"}


@dataclass(frozen=True)
class Begun:
    """A login under way: where the browser goes, and what it keeps meanwhile."""

    address: str = field(repr=False)
    keepsake: str = field(repr=False)


@dataclass(frozen=True)
class Entered:
    """A login that succeeded: the session's id, who it is, and where they wanted to go."""

    session: str = field(repr=False)
    name: str
    then: str


@dataclass(frozen=True)
class Returned:
    """What the browser came back with from the provider, and from where."""

    provider: str
    state: str = field(repr=False)
    code: str = field(repr=False)
    error: str
    source: str
    agent: str


class Logins:
    """Sends browsers to providers and lets them in when they come back.

    The browser keeps one secret of 256 bits in a cookie. State, nonce and PKCE verifier derive from it, each by a key
    derivation of its own, so that an answer counts only in the browser that asked; the store has the secret's digest
    alone, and gives it away once.
    """

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        failures: FailedLogins,
        providers: Sequence[LoginProvider],
        url: str,
        only: Collection[str] = (),
    ) -> None:
        """`only` are the groups of which somebody must be in one to be let in; none where all are."""
        self._store = store
        self._sessions = sessions
        self._failures = failures
        self._providers = {one.id: one for one in providers}
        self.url = url
        self._only = frozenset(only)

    def providers(self) -> list[LoginMethod]:
        """With whom one can log in."""
        return [LoginMethod(id=one.id, title=one.title) for one in self._providers.values()]

    def begin(self, provider: str, then: str) -> Begun:
        """Send a browser off; `then` is where it goes once it is logged in.

        Raises NotFound (`unknown_provider`), and PlatformBroke where the provider does not say where to go.
        """
        known = self._provider(provider)
        keepsake = secrets.token_urlsafe(SECRET_BYTES)
        address = known.address(self._attempt(keepsake, provider))
        with self._store.transaction() as records:
            records.pending_logins.add(digest_of(keepsake), PendingLogin(provider, then), PATIENCE)
        return Begun(address, keepsake)

    def finish(self, keepsake: str, returned: Returned) -> Entered:
        """Let a browser in that came back.

        Raises Refused: `login_elsewhere` where this browser did not ask, `login_over` where the answer came before or
        too late, `provider_refused`, `code_refused`, `bad_id_token`, `not_in_group`, `disabled`; and PlatformBroke
        where the provider is at fault. Each is in the register.
        """
        who = ""
        try:
            person, then = self._identified(keepsake, returned)
            who = _name_of(person)
            return self._enter(person, who, then, returned)
        except BranchlineError as error:
            if not isinstance(error, PlatformBroke) or error.code.startswith("provider"):
                self._failures.note(returned.provider, error.code, returned.source, who)
            raise

    def failed(self, method: str, code: str, source: str) -> None:
        """Write down that somebody failed to log in: at a provider (by its id), or with a `token`."""
        self._failures.note(method, code, source)

    def _identified(self, keepsake: str, returned: Returned) -> tuple[Person, str]:
        """Who came back, and where they wanted to go."""
        known = self._provider(returned.provider)
        attempt = self._attempt(keepsake, returned.provider)
        if not keepsake or not hmac.compare_digest(attempt.state.encode(), returned.state.encode()):
            raise Refused(
                "This login was not begun in this browser, or another one was begun since.",
                code="login_elsewhere",
                hint="Log in anew, in one window.",
            )
        with self._store.transaction() as records:
            pending = records.pending_logins.take(digest_of(keepsake))
        if pending is None or pending.provider != returned.provider:
            raise Refused(
                "This login is over: it was finished before, or took more than ten minutes.",
                code="login_over",
                hint="Log in anew.",
            )
        if returned.error or not returned.code:
            word = returned.error if returned.error.replace("_", "").isalpha() and len(returned.error) < 60 else "?"
            raise Refused(
                f"{known.title} did not let you in ({word}).",
                code="provider_refused",
                hint="Log in anew, or ask whoever runs that provider.",
            )
        return known.identify(attempt, returned.code), pending.then

    def _enter(self, person: Person, name: str, then: str, returned: Returned) -> Entered:
        groups = _groups_of(returned.provider, person)
        if self._only and self._only.isdisjoint(groups):
            raise Refused(
                f"{name} is in none of the groups that are let in.",
                code="not_in_group",
                hint="Whoever runs the platform names them in the setting `login_groups`.",
            )
        with self._store.transaction() as records:
            member = records.members.sign_in(person.issuer, person.subject, name, person.email, groups)
            proof = f"{PROOFS.get(returned.provider, returned.provider)} {person.issuer}"
            session = self._sessions.begin_as(records, member, proof, returned.source, returned.agent)
        return Entered(session, member.name, then)

    def _provider(self, name: str) -> LoginProvider:
        if name not in self._providers:
            raise NotFound(
                f"Nobody logs in with {name[:60]!r} here.", code="unknown_provider", hint="The page /login shows how."
            )
        return self._providers[name]

    def _attempt(self, keepsake: str, provider: str) -> Attempt:
        def derived(purpose: str) -> str:
            made = hmac.digest(keepsake.encode(), f"branchline login {purpose}".encode(), hashlib.sha256)
            return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

        return Attempt(
            state=derived("state"),
            nonce=derived("nonce"),
            verifier=Secret(derived("verifier")),
            redirect_uri=f"{self.url}/login/{provider}/callback",
        )


def _name_of(person: Person) -> str:
    """What a member is called whose provider calls them so."""
    name = handle(person.name) or handle(person.subject) or "somebody"
    return f"{name}-person" if alike(name) in RESERVED else name


def _groups_of(provider: str, person: Person) -> list[str]:
    """The groups of a person, as roles are given to them: GitHub's are called `github:…`.

    Anybody can make an organization there, of a name that a group of the company's own provider has.
    """
    if provider != OWN:
        return [f"{provider}:{name}" for name in person.groups]
    return [name for name in person.groups if not name.startswith(tuple(f"{one}:" for one in PROOFS))]
