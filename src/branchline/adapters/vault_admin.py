"""Setting up an OpenBao or HashiCorp Vault of somebody else's, with a token that its operator gave for this once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from branchline.adapters.vault_http import CONNECT_SECONDS, READ_SECONDS, UNTRUSTED, http_session, shown_address
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, BranchlineError, PlatformBroke, Refused, Unreachable

_LONGEST_TOKEN = 10_000
_UPGRADE_SECONDS = 15.0
"""How long a new KV v2 mount may make itself ready: HashiCorp's Vault refuses until then to tell and to take."""

_STATES = {
    501: (
        "vault_uninitialised",
        "was never initialised",
        "Initialise it: `bao operator init` or `vault operator init`.",
    ),
    503: ("vault_sealed", "is sealed", "Unseal it, then try again."),
    472: ("vault_elsewhere", "is a standby for disasters", "Name the address of the one that is active."),
    473: ("vault_elsewhere", "is a standby for reading", "Name the address of the one that is active."),
}


class VaultAdmin:
    """Reads and writes what a Vault is set up with. Nothing that it raises shows the token."""

    def __init__(self, url: str, token: Secret) -> None:
        """No connection is made yet. Raises BadInput (`bad_token`) where this cannot be a token."""
        text = token.reveal()
        if not text or len(text) > _LONGEST_TOKEN or any(not 32 < ord(letter) < 127 for letter in text):
            raise BadInput(
                "That is not a token of a Vault.",
                code="bad_token",
                hint="A token has one line without spaces, like `hvs.…` or `s.…`.",
            )
        self._url = url
        self._token = token
        self._http = http_session(url)

    @property
    def _name(self) -> str:
        return f"The Vault at {shown_address(self._url)}"

    def greet(self) -> str:
        """Make sure that it works and lets this token in; return its version.

        Raises PlatformBroke (`vault_unreachable`, `vault_sealed`, `vault_uninitialised`, `vault_elsewhere`,
        `not_a_vault`) and Refused (`vault_token_refused`).
        """
        status, said = self._ask("GET", "sys/health")
        if "sealed" not in said or "initialized" not in said:
            raise self._no_vault()
        if status in _STATES:
            code, what, hint = _STATES[status]
            raise PlatformBroke(f"{self._name} {what}.", code=code, hint=hint)
        if self._ask("GET", "auth/token/lookup-self")[0] != 200:
            raise Refused(
                f"{self._name} refuses this token.",
                code="vault_token_refused",
                hint="It has expired, was revoked, or is another Vault's. Make a new one and try again.",
            )
        return str(said.get("version", "unknown"))

    def read(self, path: str) -> Mapping[str, Any] | None:
        """What is there; None where nothing is."""
        status, said = self._ask_when_ready("GET", path)
        if status in {204, 404}:
            return None
        if status != 200:
            raise self._refusal("let this token read", path, status, said)
        found = said.get("data")
        if not isinstance(found, dict):
            raise self._no_vault()
        return found

    def write(self, path: str, data: Mapping[str, Any]) -> None:
        """Write these values there; those that are not named stay."""
        status, said = self._ask_when_ready("POST", path, data)
        if status not in {200, 204}:
            raise self._refusal("take", path, status, said)

    def capabilities(self, paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """What the token may do at each path; nothing where it may not even ask that."""
        status, said = self._ask("POST", "sys/capabilities-self", {"paths": list(paths)})
        found = said.get("data")
        return found if status == 200 and isinstance(found, dict) else {}

    def revoke(self) -> None:
        """Make the token worthless; raises PlatformBroke (`token_not_revoked`)."""
        status, said = self._ask("POST", "auth/token/revoke-self", {})
        if status not in {200, 204}:
            raise PlatformBroke(
                f"{self._name} did not revoke the token: {_words(said) or f'HTTP {status}'}.",
                code="token_not_revoked",
                hint="Everything is set up. Revoke the token yourself, or let it expire.",
            )

    def _ask_when_ready(
        self, method: str, path: str, data: Mapping[str, Any] | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        """The same, but a mount that still makes itself ready is waited for."""
        end = time.monotonic() + _UPGRADE_SECONDS
        while True:
            status, said = self._ask(method, path, data)
            if not (status == 400 and "pgrading from non-versioned" in _words(said)) or time.monotonic() > end:
                return status, said
            time.sleep(0.2)

    def _ask(self, method: str, path: str, data: Mapping[str, Any] | None = None) -> tuple[int, Mapping[str, Any]]:
        """Status and body. Raises Unreachable, and PlatformBroke (`vault_elsewhere`) for a redirect."""
        try:
            answer = self._http.request(
                method,
                f"{self._url}/v1/{path}",
                json=data,
                headers={"X-Vault-Token": self._token.reveal(), "X-Vault-Request": "true"},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                verify=self._http.verify,  # or REQUESTS_CA_BUNDLE would win
                allow_redirects=False,  # nobody else may get to see the token
            )
        except requests.RequestException as error:
            broke = self._unreachable(error)
        else:
            if not answer.is_redirect:
                return answer.status_code, _object(answer)
            broke = PlatformBroke(
                f"{self._name} sends us elsewhere.",
                code="vault_elsewhere",
                hint=f"Name that address, if you trust it: {shown_address(answer.headers['Location'])}",
            )
        # Raised out here, so that the library's error, which holds the request and its token, is not chained to it.
        raise broke

    def _unreachable(self, error: Exception) -> BranchlineError:
        what, hint = "cannot be reached", "Check the address, and that it runs."
        match error:
            case requests.Timeout():
                what = "does not answer in time"
            case requests.exceptions.SSLError():
                what, hint = "has a certificate that this machine does not trust", UNTRUSTED
        return Unreachable(f"{self._name} {what}.", code="vault_unreachable", hint=hint)

    def _refusal(self, what: str, path: str, status: int, said: Mapping[str, Any]) -> BranchlineError:
        sentence, words = f"{self._name} does not {what} {path}", _words(said)
        if status == 403:
            hint = "`branchline vault setup --dry-run` shows the policy that the token needs."
            return Refused(f"{sentence}: permission denied.", code="vault_token_refused", hint=hint)
        hint = "Its log says more. What was done so far stays, and the same command goes on from there."
        return PlatformBroke(f"{sentence}: {words or f'HTTP {status}'}.", code="vault_refused", hint=hint)

    def _no_vault(self) -> PlatformBroke:
        hint = "Check the address: it is what `bao` and `vault` call BAO_ADDR and VAULT_ADDR."
        return PlatformBroke(f"{self._name} gives answers that no Vault gives.", code="not_a_vault", hint=hint)


def _object(answer: requests.Response) -> Mapping[str, Any]:
    try:
        found = answer.json() if answer.content else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(said: Mapping[str, Any]) -> str:
    """What it says of a refusal, in one line."""
    errors = said.get("errors")
    return " ".join(" ".join(map(str, errors if isinstance(errors, list) else [])).split())[:300].rstrip(".")
