"""The platform's numbers as Prometheus reads them, in a registry of our own."""

from __future__ import annotations

import platform as machine
from collections.abc import Callable, Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from branchline import __version__
from branchline.domain.deployment import State
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke
from branchline.server.platform import Platform
from branchline.wire import MetricsView

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

log = structlog.get_logger(__name__)


class Metrics:
    """Counts the server's own answers, and asks the platform for the rest when somebody reads."""

    def __init__(self, platform: Platform, watched: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "branchline_http_requests",
            "Answers, by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "branchline_http_request_seconds",
            "Seconds until an answer began, by route.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_PlatformNumbers(platform, watched))
        ProcessCollector(registry=self._registry)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        known = method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format. Blocks: it asks the database."""
        return generate_latest(self._registry)


class _PlatformNumbers(Collector):
    def __init__(self, platform: Platform, watched: Callable[[], int]) -> None:
        self._platform = platform
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "branchline_build_info",
            "Which version runs.",
            {(__version__, machine.python_version()): 1},
            ["version", "python"],
        )
        yield GaugeMetricFamily(
            "branchline_followed_deployments", "Deployments that somebody follows live.", value=self._watched()
        )
        try:
            numbers = self._platform.metrics()
        except PlatformBroke as error:
            # the server's own numbers matter most when the database is away
            log.warning("metrics_without_database", code=error.code, sentence=str(error))
            yield GaugeMetricFamily("branchline_database_up", "Whether the platform's database answers.", value=0)
            return
        yield GaugeMetricFamily("branchline_database_up", "Whether the platform's database answers.", value=1)
        yield from _deployments(numbers)
        yield from _stages(numbers)

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []


def _deployments(numbers: MetricsView) -> Iterator[Metric]:
    ended = CounterMetricFamily("branchline_deployments", "Deployments that ended.", labels=["state", "tier"])
    for state in State:
        if state.final:
            for tier in Tier:
                ended.add_metric([state, tier], numbers.deployments.get((state, tier), 0))
    yield ended
    for state, name, meaning in (
        (State.RUNNING, "branchline_deployments_running", "Deployments that run now."),
        (State.QUEUED, "branchline_deployments_queued", "Deployments that wait for a runner."),
    ):
        counts: dict[tuple[str, ...], int] = {(tier.value,): numbers.deployments.get((state, tier), 0) for tier in Tier}
        yield _gauge(name, meaning, counts, ["tier"])


def _stages(numbers: MetricsView) -> Iterator[Metric]:
    seconds = SummaryMetricFamily("branchline_stage_seconds", "How long stages took that ended.", labels=["stage"])
    for stage, (count, total) in sorted(numbers.stages.items()):
        seconds.add_metric([stage], count_value=count, sum_value=total)
    yield seconds


def _gauge(name: str, meaning: str, values: dict[tuple[str, ...], int], labels: list[str]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
