"""A kept-alive session with OpenBao or HashiCorp Vault: logins, time limits, and its errors in our words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import hvac
import requests
from hvac.exceptions import (
    BadGateway,
    Forbidden,
    InternalServerError,
    InvalidPath,
    InvalidRequest,
    RateLimitExceeded,
    Unauthorized,
    VaultDown,
    VaultError,
    VaultNotInitialized,
)

from branchline.adapters.vault_http import (
    CONNECT_SECONDS,
    READ_SECONDS,
    UNTRUSTED,
    cut_off,
    quick_session,
    shown_address,
)
from branchline.domain.errors import BadInput, BranchlineError, PlatformBroke

_LARGE = "All settings of an environment together may have 1 MiB; put larger things into a file or a bucket."

_LOGINS = 3
"""How often one login is tried."""

_Answer = TypeVar("_Answer")


class NotAVault(Exception):
    """What answered does not speak the Vault API; never leaves the adapter."""


@dataclass(frozen=True)
class _Login:
    client: hvac.Client
    until: float


class VaultSession:
    """Asks under logins that are kept until shortly before they end. Safe to share between threads."""

    def __init__(self, url: str, *, mount: str, role: str) -> None:
        self._url = url
        self._mount = mount
        self._role = role
        self._logins: dict[str, _Login] = {}
        self._http = quick_session(url)

    def ask(self, who: str, sign: Callable[[], str], question: Callable[[hvac.Client], _Answer]) -> _Answer:
        """Answer the question under the login of `who`, which is made with a token from `sign` where there is none.

        The question may be asked twice, where a kept login turns out to have ended early (revoked, or the store was
        set up anew). Raises PlatformBroke (`config_unreachable`, `config_refused`) and BadInput (`config_too_large`).
        """
        try:
            kept = self._logins.get(who)
            if kept is not None and kept.until > time.monotonic():
                try:
                    return question(kept.client)
                except Forbidden:
                    self._logins.pop(who, None)
            return question(self._log_in(who, sign()))
        except (VaultError, requests.RequestException, NotAVault) as error:
            broke = self._explain(error)
        # Raised out here, so that the library's error, which holds the request and its values, is not chained to it.
        raise broke

    def _log_in(self, who: str, token: str) -> hvac.Client:
        answer = self._login(token)
        try:
            granted, seconds = str(answer["auth"]["client_token"]), float(answer["auth"]["lease_duration"])
        except (KeyError, TypeError, ValueError):
            raise NotAVault from None
        client = self._client(granted)
        now = time.monotonic()
        alive = {name: login for name, login in self._logins.items() if login.until > now}
        self._logins = {**alive, who: _Login(client, now + seconds - min(30.0, seconds / 4))}
        return client

    def _login(self, token: str) -> Any:
        """OpenBao cuts off logins at whose mount keys are changed in that moment; a login can be repeated."""
        client, left = self._client(""), _LOGINS
        while True:
            left -= 1
            try:
                return client.auth.jwt.jwt_login(role=self._role, jwt=token, path=self._mount, use_token=False)
            except requests.ConnectionError as error:
                if not left or not cut_off(error):
                    raise

    def _client(self, token: str) -> hvac.Client:
        return hvac.Client(
            self._url, token=token, session=self._http, timeout=(CONNECT_SECONDS, READ_SECONDS), verify=True
        )

    def _explain(self, error: Exception) -> BranchlineError:
        """The error in our words. What the store said is shown for logins only: no value is anywhere near those."""
        said = getattr(error, "errors", None)  # every error of a Vault has this list, even if it is empty
        words = " ".join(" ".join(said or ()).split())
        code, hint = "config_unreachable", "See whether it runs: `branchline status`."
        match error:
            case requests.Timeout():
                what = "does not answer in time"
            case requests.exceptions.SSLError():
                what, hint = "has a certificate that this machine does not trust", UNTRUSTED
            case requests.RequestException():
                what = "cannot be reached"
            case _ if "too large" in words:
                return BadInput("The config would become too large.", code="config_too_large", hint=_LARGE)
            case _ if "high complexity" in words:
                sentence = "The config would have more keys than the store takes at once."
                hint = "Its setting `max_request_json_strings` must be more than twice as many as there are keys."
                return BadInput(sentence, code="config_too_large", hint=hint)
            case VaultDown() if "sealed" in words.lower():
                what, hint = "is sealed", "Unseal it; the embedded one unseals itself when it is restarted."
            case VaultNotInitialized() if said is not None:
                what, hint = "was never initialised", "Set it up, then try again."
            case RateLimitExceeded():
                what, hint = "refuses so many requests at once", "Try again, or raise its quota."
            case VaultDown() | InternalServerError() | BadGateway():
                what, hint = "has a fault of its own", "Its log says more; a full disk does this too."
            case Forbidden() | Unauthorized() | InvalidRequest() | InvalidPath() if said is not None:
                what, code = "refuses us", "config_refused"
                hint = "Its login mounts, roles and policies must be those that the platform sets up."
                hint += " In one of your own, `branchline vault setup` does."
                if f"/auth/{self._mount}/login" in str(getattr(error, "url", "")):
                    hint += f" It said of our login: {words[:300]}"
            case _:
                what, hint = "gives answers that no Vault gives", "Check the setting `vault_url`."
        return PlatformBroke(f"The config store at {shown_address(self._url)} {what}.", code=code, hint=hint)
