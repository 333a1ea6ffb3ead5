"""The operator's login at the embedded OpenBao, for a person who has something to mend there by hand."""

from __future__ import annotations

from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.openbao_rules import log_in_as_operator
from branchline.stack.part import NotReady


def address_of(settings: Settings) -> str:
    """The embedded OpenBao's address.

    Raises BadInput (`foreign_vault`) where there is another Vault in its place, PlatformBroke (`not_set_up`).
    """
    if settings.vault_url:
        raise BadInput(
            "This platform has a Vault of your own, which does not know its operator.",
            code="foreign_vault",
            hint="Whoever runs that Vault logs in there as always.",
        )
    return f"http://127.0.0.1:{Layout.load(settings.home).ports.openbao}"


def log_in(settings: Settings) -> Secret:
    """A token that may do everything there, for five minutes. OpenBao's audit notes what is done with it.

    Raises what `address_of` does, and PlatformBroke: `key_unreadable` for whoever may not read the operator's key,
    `config_unreachable` where OpenBao does not let it in.
    """
    server = address_of(settings).removeprefix("http://")
    try:
        return Secret(log_in_as_operator(server, Layout.load(settings.home)))
    except NotReady as answer:
        raise PlatformBroke(
            f"OpenBao cannot be logged in to: {answer}.",
            code="config_unreachable",
            hint="See whether it runs: `branchline status`.",
        ) from None
