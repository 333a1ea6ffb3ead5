"""A runner's side: Docker, the proxy, its tier's databases, and its tier's identity alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from branchline.adapters.caddy import CaddyProxy
from branchline.adapters.containers import DockerContainers
from branchline.adapters.git import GitSource
from branchline.adapters.images import DockerImages
from branchline.adapters.postgres import PostgresDatabases
from branchline.adapters.probes import NetworkProbes
from branchline.adapters.registry import RegistryArchive
from branchline.adapters.secret_files import SecretFiles
from branchline.adapters.vault import VaultConfigReader
from branchline.bootstrap import open_store
from branchline.domain.environment import Tier
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.changes import WhatChanged
from branchline.operations.chores import Chore
from branchline.operations.deploy import Deploy
from branchline.operations.health import Health
from branchline.operations.housekeeping import Housekeeping, Rules
from branchline.operations.launch import Launch
from branchline.operations.mending import Mending
from branchline.operations.pipeline import Pipeline
from branchline.operations.traffic import TrafficShift
from branchline.operations.variables import Variables
from branchline.settings import Settings
from branchline.stack.environments import being_started
from branchline.stack.process import server_user
from branchline.stack.registry import Registry
from branchline.store.database import SqlStore
from branchline.store.leases import sessions_of

_FORGET_EVERY = 600.0
"""Seconds. What a killed build has left of its secrets in memory goes soon after a runner's start, or by then."""


@dataclass(frozen=True)
class RunnerParts:
    """What a runner carries deployments with."""

    settings: Settings
    layout: Layout
    store: SqlStore
    deploy: Deploy
    chores: tuple[Chore, ...]


def runner_parts(settings: Settings, tier: Tier, runner: str, report_fault: Callable[[str, str], None]) -> RunnerParts:
    """Put a runner's story together."""
    layout = Layout.load(settings.home)
    endpoints = Endpoints(settings, layout)
    store = open_store(endpoints, sessions=sessions_of(runner))
    docker = endpoints.docker(tier)
    containers = DockerContainers(docker, layout)
    files = SecretFiles(layout.instance)
    images = DockerImages(docker, endpoints.registry, files, settings.build_ca_bundle)
    host, port = endpoints.database_for_containers(tier)
    passwords = layout.key(f"database-{tier}.key")
    databases = PostgresDatabases(endpoints.tier_database(tier), host, port, passwords, tier)
    config = VaultConfigReader(endpoints.vault, tier, partial(layout.key, f"{tier}.pem"))
    variables = Variables(config, databases)
    health = Health(containers, NetworkProbes(containers))
    # Production takes commits from the repository alone; elsewhere what the server has just fetched will do.
    source = GitSource(layout.git(tier), lender=None if tier is Tier.PRODUCTION else layout.git("server"))
    pipeline = Pipeline(
        store,
        source,
        images,
        containers,
        databases,
        work=layout.work(tier),
        tier=tier,
        builds_at_once=settings.builds_at_once,
        instance=layout.instance,
        build_secrets=variables.for_build,
    )
    proxy = CaddyProxy(layout, settings)
    changes = WhatChanged(source, config)
    launch = Launch(store, images, containers, databases, variables, health, changes, domain=settings.domain)
    deploy = Deploy(
        store,
        pipeline,
        launch,
        TrafficShift(store, containers, proxy, health, domain=settings.domain),
        log_limit=settings.log_limit,
        patience=settings.patience,
        report_fault=report_fault,
    )
    mending = Mending(
        store,
        launch,
        containers,
        proxy,
        health,
        tier=tier,
        log_limit=settings.log_limit,
        starting=being_started(layout),
    )
    archive = None
    if not settings.registry:  # else it is somebody else's to clean
        registry = Registry(layout, server_user())
        archive = RegistryArchive(registry.endpoint, registry.reclaim_command(), registry.command().environment)
    rules = Rules(
        releases=settings.keep_releases,
        logs=settings.keep_logs,
        logs_for=timedelta(days=settings.keep_logs_days),
        build_cache=settings.build_cache_mb * 1_000_000,
        every=settings.housekeeping_every,
    )
    housekeeping = Housekeeping(store, pipeline, containers, images, archive, tier=tier, rules=rules)
    chores = (*housekeeping.chores(), mending.chore(), Chore("forget-secrets", _FORGET_EVERY, files.forget_moments))
    return RunnerParts(settings, layout, store, deploy, chores)
