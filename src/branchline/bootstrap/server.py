"""The server's side: it decides and records, holds no tier's key and touches no container."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from branchline.adapters.caddy import CaddyProxy
from branchline.adapters.git import GitSource
from branchline.adapters.vault import VaultConfigWriter
from branchline.adapters.vault_notary import VaultNotary
from branchline.bootstrap import open_store
from branchline.bootstrap.logins import login_providers, public_url
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.chores import Chore, Chores
from branchline.operations.config import Settings as ConfigOfEnvironments
from branchline.operations.config_ledger import ConfigLedger
from branchline.operations.devices import Devices
from branchline.operations.failures import FailedLogins
from branchline.operations.gate import Gate
from branchline.operations.logins import Logins
from branchline.operations.members import Members
from branchline.operations.projects import Environments, Projects
from branchline.operations.provenance import Provenance
from branchline.operations.register import Audit, Pulse
from branchline.operations.requests import Deployments
from branchline.operations.sealing import Sealing
from branchline.operations.sessions import Sessions
from branchline.operations.tokens import Tokens
from branchline.operations.views import Views
from branchline.settings import Settings
from branchline.wire import MetricsView

_SETTLE_EVERY = 60.0
"""Seconds. What became of a change of config whose writer died is in the register a minute or two later."""

_FORGET_EVERY = 600.0
"""Seconds. What is over counts no more at once; only its row stays until then."""


@dataclass(frozen=True)
class ServerPlatform:
    """What the HTTP server offers: each operation passes the gate by itself."""

    tokens: Tokens
    members: Members
    projects: Projects
    environments: Environments
    deployments: Deployments
    config: ConfigOfEnvironments
    provenance: Provenance
    logins: Logins
    sessions: Sessions
    devices: Devices
    audit: Audit
    pulse: Pulse
    chores: Chores

    def health(self) -> dict[str, str]:
        """Each part that the server needs: `ok`, or what is wrong with it."""
        return self.pulse.health()

    def metrics(self) -> MetricsView:
        """The platform's numbers."""
        return self.pulse.metrics()


def server_platform(settings: Settings, say: Callable[[str, str], None]) -> ServerPlatform:
    """Put the server's operations together; `say` is told what went wrong with a chore (its name, a sentence)."""
    layout = Layout.load(settings.home)
    providers, url = login_providers(settings, layout), public_url(settings, layout)
    endpoints = Endpoints(settings, layout)
    store = open_store(endpoints, pool=2)
    gate = Gate(store)
    views = Views(CaddyProxy(layout, settings).url)
    source = GitSource(layout.git("server"))
    writer = VaultConfigWriter(endpoints.vault, partial(layout.key, "server.pem"))
    ledger = ConfigLedger(store, writer)
    provenance = Provenance(store, gate, writer, ledger)
    tokens = Tokens(store, gate)
    sessions = Sessions(store, gate, tokens)
    notary = VaultNotary(endpoints.vault, partial(layout.key, "server.pem"))
    chores = [
        Chore("settle-config", _SETTLE_EVERY, ledger.settle_all),
        Chore("forget-sessions", _FORGET_EVERY, sessions.prune),
        Sealing(store, notary, settings.seal_every).chore(),
    ]
    return ServerPlatform(
        tokens=tokens,
        members=Members(store, gate),
        projects=Projects(store, gate, views),
        environments=Environments(store, gate, views, provenance),
        deployments=Deployments(store, gate, views, source, settings.domain),
        config=ConfigOfEnvironments(store, gate, writer, ledger),
        provenance=provenance,
        logins=Logins(store, sessions, FailedLogins(store), providers, url, _named(settings.login_groups)),
        sessions=sessions,
        devices=Devices(store, gate, tokens, url),
        audit=Audit(store, gate, notary),
        pulse=Pulse(store),
        chores=Chores(store, "server", chores, say),
    )


def _named(text: str) -> set[str]:
    """Names that are separated by commas."""
    return {name for one in text.split(",") if (name := one.strip())}
