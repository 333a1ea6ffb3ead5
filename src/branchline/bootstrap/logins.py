"""With whom people log in, by the settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from branchline.domain.addresses import on_this_machine, server_address
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput
from branchline.layout import Layout
from branchline.settings import Settings

if TYPE_CHECKING:
    from pydantic import SecretStr

    from branchline.ports.logins import LoginProvider


def public_url(settings: Settings, layout: Layout) -> str:
    """Where browsers reach the server. Raises BadInput (`bad_settings`)."""
    if settings.public_url:
        return _address("public_url", settings.public_url)
    host, _, port = settings.server_listen.rpartition(":")
    if host in {"", "0.0.0.0", "[::]", "*"}:  # noqa: S104 it is read here, not listened on
        host = "127.0.0.1"
    return f"http://{host}:{port or layout.ports.server}"


def login_providers(settings: Settings, layout: Layout) -> list[LoginProvider]:
    """The providers that are set: none, and people log in with tokens alone. Raises BadInput (`bad_settings`)."""
    found: list[LoginProvider] = []
    if settings.oidc_issuer:
        from branchline.adapters.oidc import OidcClient, OidcProvider  # noqa: PLC0415 memory that most do without

        _address("oidc_issuer", settings.oidc_issuer, secure=True)
        client = OidcClient(
            issuer=settings.oidc_issuer,
            id=_set("oidc_client_id", settings.oidc_client_id),
            secret=partial(_secret, settings.oidc_client_secret, layout, "oidc-client.secret"),
            scopes=tuple(dict.fromkeys(["openid", *settings.oidc_scopes.split()])),
            groups_claim=settings.oidc_groups_claim,
            name_claim=settings.oidc_name_claim,
        )
        found.append(OidcProvider(client))
    if settings.github_client_id:
        from branchline.adapters.github_login import GitHubLogin  # noqa: PLC0415

        url = _address("github_url", settings.github_url, secure=True)
        secret = partial(_secret, settings.github_client_secret, layout, "github-client.secret")
        found.append(GitHubLogin(url, settings.github_client_id, secret))
    return found


def _secret(given: SecretStr | None, layout: Layout, file: str) -> Secret | None:
    """Read anew for each login, so that a new one counts at once."""
    if given is not None:
        return Secret(given.get_secret_value())
    return layout.key(file) if (layout.home / "keys" / file).exists() else None


def _set(name: str, value: str) -> str:
    if not value:
        raise BadInput(
            f"The setting `{name}` is missing.", code="bad_settings", hint="`oidc_issuer` needs it beside it."
        )
    return value


def _address(name: str, url: str, *, secure: bool = False) -> str:
    hint = f"Set `{name}` to an address like https://id.example.com."
    address = server_address(url, of=f"`{name}`", code="bad_settings", hint=hint)
    if secure and not address.startswith("https:") and not on_this_machine(address):
        raise BadInput(f"`{name}` has no https: who people are could be forged.", code="bad_settings", hint=hint)
    return address
