"""A runner's side: Docker, the proxy, its tier's databases, and its tier's identity alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from branchline.adapters.caddy import CaddyProxy
from branchline.adapters.containers import DockerContainers
from branchline.adapters.engine import prepare
from branchline.adapters.git import GitSource
from branchline.adapters.images import DockerImages
from branchline.adapters.postgres import PostgresDatabases
from branchline.adapters.probes import NetworkProbes
from branchline.adapters.vault import VaultConfigReader
from branchline.bootstrap import open_store
from branchline.domain.environment import Tier
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.deploy import Deploy
from branchline.operations.health import Health
from branchline.operations.launch import Launch
from branchline.operations.pipeline import Pipeline
from branchline.operations.traffic import TrafficShift
from branchline.operations.variables import Variables
from branchline.settings import Settings
from branchline.store.database import SqlStore


@dataclass(frozen=True)
class RunnerParts:
    """What a runner carries deployments with."""

    settings: Settings
    layout: Layout
    store: SqlStore
    deploy: Deploy


def runner_parts(settings: Settings, tier: Tier, runner: str, report_fault: Callable[[str, str], None]) -> RunnerParts:
    """Put a runner's story together."""
    layout = Layout.load(settings.home)
    endpoints = Endpoints(settings, layout)
    store = open_store(endpoints, prepare)
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
        Launch(store, images, containers, databases, variables, health, domain=settings.domain),
        TrafficShift(store, containers, CaddyProxy(layout, settings), health, domain=settings.domain),
        runner=runner,
        log_limit=settings.log_limit,
        report_fault=report_fault,
    )
    return RunnerParts(settings, layout, store, deploy)
