"""The one place where settings become adapters and operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from branchline.adapters.caddy import CaddyProxy
from branchline.adapters.containers import DockerContainers
from branchline.adapters.git import GitSource
from branchline.adapters.images import DockerImages
from branchline.adapters.postgres import PostgresDatabases
from branchline.adapters.probes import NetworkProbes
from branchline.adapters.vault import VaultConfigReader, VaultConfigWriter
from branchline.domain.environment import Tier
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.config import Settings as ConfigOfEnvironments
from branchline.operations.deploy import Deploy
from branchline.operations.gate import Gate
from branchline.operations.health import Health
from branchline.operations.launch import Launch
from branchline.operations.pipeline import Pipeline
from branchline.operations.projects import Environments, Projects
from branchline.operations.register import Audit, Pulse
from branchline.operations.requests import Deployments
from branchline.operations.tokens import Tokens
from branchline.operations.traffic import TrafficShift
from branchline.operations.variables import Variables
from branchline.operations.views import Views
from branchline.settings import Settings
from branchline.store.database import SqlStore, connect
from branchline.store.schema import migrate
from branchline.wire import MetricsView


@dataclass(frozen=True)
class ServerPlatform:
    """What the HTTP server offers: each operation passes the gate by itself."""

    tokens: Tokens
    projects: Projects
    environments: Environments
    deployments: Deployments
    config: ConfigOfEnvironments
    audit: Audit
    pulse: Pulse

    def health(self) -> dict[str, str]:
        """Each part that the server needs: `ok`, or what is wrong with it."""
        return self.pulse.health()

    def metrics(self) -> MetricsView:
        """The platform's numbers."""
        return self.pulse.metrics()


@dataclass(frozen=True)
class RunnerParts:
    """What a runner carries deployments with."""

    settings: Settings
    layout: Layout
    store: SqlStore
    deploy: Deploy


def server_platform(settings: Settings) -> ServerPlatform:
    """The server's side: it decides and records, holds no tier's key and touches no container."""
    layout = Layout.load(settings.home)
    endpoints = Endpoints(settings, layout)
    store = _store(endpoints)
    gate = Gate(store)
    views = Views(CaddyProxy(layout, settings).url)
    source = GitSource(layout.git("server"))
    writer = VaultConfigWriter(endpoints.vault, layout.key("server.pem"))
    return ServerPlatform(
        tokens=Tokens(store, gate),
        projects=Projects(store, gate, views),
        environments=Environments(store, gate, views),
        deployments=Deployments(store, gate, views, source, settings.domain),
        config=ConfigOfEnvironments(store, gate, writer),
        audit=Audit(store, gate),
        pulse=Pulse(store),
    )


def runner_parts(settings: Settings, tier: Tier, runner: str, report_fault: Callable[[str, str], None]) -> RunnerParts:
    """A runner's side: Docker, the proxy, its tier's databases, and its tier's identity alone."""
    layout = Layout.load(settings.home)
    endpoints = Endpoints(settings, layout)
    store = _store(endpoints)
    docker = endpoints.docker(tier)
    containers = DockerContainers(docker, layout)
    images = DockerImages(docker, endpoints.registry, settings.build_ca_bundle)
    host, port = endpoints.database_for_containers(tier)
    passwords = layout.key(f"database-{tier}.key")
    databases = PostgresDatabases(endpoints.tier_database(tier), host, port, passwords, tier)
    variables = Variables(VaultConfigReader(endpoints.vault, tier, layout.key(f"{tier}.pem")), databases)
    health = Health(containers, NetworkProbes(containers))
    deploy = Deploy(
        store,
        Pipeline(
            store,
            GitSource(layout.git(tier)),
            images,
            containers,
            databases,
            worktree=lambda deployment: layout.worktree(tier, deployment),
            builds_at_once=settings.builds_at_once,
        ),
        Launch(store, images, containers, databases, variables, health),
        TrafficShift(store, containers, CaddyProxy(layout, settings), health),
        runner=runner,
        log_limit=settings.log_limit,
        report_fault=report_fault,
    )
    return RunnerParts(settings, layout, store, deploy)


def _store(endpoints: Endpoints) -> SqlStore:
    engine = connect(endpoints.platform_database)
    migrate(engine)
    return SqlStore(engine)
