"""The whole stack on one page: which parts there are, and which of them somebody else runs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from branchline.domain.environment import Tier
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.caddy import Caddy
from branchline.stack.docker import Bridge, Engine
from branchline.stack.environments import Environments
from branchline.stack.openbao import OpenBao
from branchline.stack.part import External, Part
from branchline.stack.postgres import Cluster, Postgres
from branchline.stack.process import User
from branchline.stack.programs import ForkServer, Runner, Server
from branchline.stack.registry import Registry

SESSIONS = 20
"""What a runner may have open in the platform's database: 16 at work, a lease, a bell, some that just end."""


def servers(settings: Settings, layout: Layout, user: User | None) -> list[Part]:
    """What the platform's own programs stand on. Each one whose URL is set is external."""
    return [
        Engine(settings.docker_host),
        *([Engine(settings.production_docker_host, "docker-production")] if settings.production_docker_host else []),
        Bridge(layout, settings.docker_host),
        _postgres(layout, Cluster.PLATFORM, user, settings.database_url, 60 + SESSIONS * settings.runners * len(Tier)),
        _postgres(layout, Cluster.NONPROD, user, settings.nonprod_database_url),
        _postgres(layout, Cluster.PRODUCTION, user, settings.production_database_url),
        _external("openbao", settings.vault_url) if settings.vault_url else OpenBao(layout, user),
        _external("registry", f"//{settings.registry}") if settings.registry else Registry(layout, user),
        _external("caddy", settings.caddy_admin) if settings.caddy_admin else Caddy(layout, settings, user),
    ]


def programs(settings: Settings, layout: Layout, user: User | None) -> list[Part]:
    """The platform's own programs, and what they run; `user` is the account of the HTTP server."""
    return [
        ForkServer(layout),
        Server(layout, settings, user),
        *(Runner(layout, settings, tier, number + 1) for tier in Tier for number in range(settings.runners)),
        Environments(layout, settings.docker_host),
    ]


def _postgres(
    layout: Layout, cluster: Cluster, user: User | None, url: SecretStr | None, connections: int = 200
) -> Part:
    if url:
        return _external(f"postgres-{cluster}", url.get_secret_value())
    return Postgres(layout, cluster, user, connections)


def _external(name: str, url: str) -> Part:
    """A server by its URL, or its Unix socket as `unix/PATH`; credentials in a URL are left out."""
    if url.startswith("unix/"):
        return External(name, Path(url.removeprefix("unix/")))
    ports = {"http": 80, "https": 443, "postgresql": 5432, "postgres": 5432, "": 443}
    parts = urlsplit(url)
    port = parts.port or ports.get(parts.scheme.partition("+")[0], 443)
    return External(name, (parts.hostname or "127.0.0.1", port))
