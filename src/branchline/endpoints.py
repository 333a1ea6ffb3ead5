"""Where each server answers: the embedded one, or the external one that a setting names."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from branchline.domain.config import Secret
from branchline.domain.environment import Tier
from branchline.layout import Layout
from branchline.settings import Settings


@dataclass(frozen=True)
class Endpoints:
    """Addresses and credentials, with external servers before embedded ones."""

    settings: Settings
    layout: Layout

    @property
    def vault(self) -> str:
        """The URL of OpenBao or HashiCorp Vault."""
        return self.settings.vault_url or f"http://127.0.0.1:{self.layout.ports.openbao}"

    @property
    def registry(self) -> str:
        """The registry as image names begin with it."""
        return self.settings.registry or f"127.0.0.1:{self.layout.ports.registry}"

    @property
    def platform_database(self) -> Secret:
        """The URL of the platform's own database."""
        if self.settings.database_url:
            return Secret(self.settings.database_url.get_secret_value())
        password = self.layout.key("postgres-platform-app.password")
        return _url("branchline", password, self.layout.ports.postgres_platform, "branchline")

    def tier_database(self, tier: Tier) -> Secret:
        """The URL of an administrator of the server that holds a tier's databases."""
        external = {
            Tier.NONPROD: self.settings.nonprod_database_url,
            Tier.PRODUCTION: self.settings.production_database_url,
        }[tier]
        if external:
            return Secret(external.get_secret_value())
        password = self.layout.key(f"postgres-{tier}.password")
        return _url("postgres", password, self._port(tier), "postgres")

    def database_for_containers(self, tier: Tier) -> tuple[str, int]:
        """Host and port at which containers reach their tier's server."""
        admin = urlsplit(self.tier_database(tier).reveal())
        if admin.port == self._port(tier) and admin.hostname == "127.0.0.1":
            return str(self.layout.gateway), self._port(tier)
        return self.settings.database_host or admin.hostname or "", admin.port or 5432

    def docker(self, tier: Tier) -> str | None:
        """The tier's Docker endpoint; None means the environment's, or the local socket."""
        if tier is Tier.PRODUCTION and self.settings.production_docker_host:
            return self.settings.production_docker_host
        return self.settings.docker_host or None

    def _port(self, tier: Tier) -> int:
        ports = self.layout.ports
        return ports.postgres_production if tier is Tier.PRODUCTION else ports.postgres_nonprod


def _url(user: str, password: Secret, port: int, database: str) -> Secret:
    # Over TCP, not a Unix socket: only there psycopg words a lost connection as the engine expects it.
    return Secret(f"postgresql://{user}:{quote(password.reveal(), safe='')}@127.0.0.1:{port}/{database}")
