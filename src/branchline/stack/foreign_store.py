"""A config store of somebody else's while a key is rotated: it cannot be told of keys, but it can be tried."""

from __future__ import annotations

from pathlib import Path

from branchline.adapters.identity import Identity, Signer
from branchline.adapters.vault_session import VaultSession
from branchline.domain.config import Secret
from branchline.domain.errors import Conflict, PlatformBroke


class ForeignStore:
    """Whoever may do so tells it of keys, with `branchline vault setup`; both keys while there are two."""

    def __init__(self, url: str) -> None:
        self._url = url

    def learn(self, name: str, key: Path) -> None:
        """Log in with the new key; raises Conflict (`new_key_unknown`) where that is refused."""
        signer = Signer(lambda: Secret(key.read_text()))
        mount, role, sign = f"jwt-{name}", "runtime", lambda: signer.runtime(Identity(name, *["_rotation"] * 4))
        if name == "server":
            role, sign = "config-writer", signer.server
        try:
            VaultSession(self._url, mount=mount, role=role).ask(name, sign, lambda _: None)
        except PlatformBroke as refused:
            if refused.code != "config_refused":
                raise
            raise Conflict(
                f"The config store does not know the new key of {name} yet; the old one stays in use.",
                code="new_key_unknown",
                hint=f"Run `branchline vault setup`, then `branchline keys rotate {name}` again.",
            ) from None

    def forget(self, name: str) -> str:
        """Say what must be done."""
        return f"{name}.pem is new; run `branchline vault setup` once more, so that the old one opens nothing"
