"""How many deployments a minute the platform carries: 17 projects, pushes at random, people on all the sites.

A few developers push, each to a project that nobody else is at, and wait until it is live; so nothing is superseded,
and every deployment counts. `BENCH_SEED` repeats a run, `BENCH_PUSHES` makes a longer one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
from tests.e2e.platform import Platform, Repository

import report
import site_to_deploy as site

PROJECTS = 17
DEVELOPERS = 6
CLIENTS = 4
PUSHES = int(os.environ.get("BENCH_PUSHES") or 150)
SEED = int(os.environ.get("BENCH_SEED") or random.SystemRandom().randrange(10**6))


class Company:
    """The projects, and who is at which of them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._dice = random.Random(SEED)
        self._lock = threading.Lock()
        self._names = [f"site{number}" for number in range(PROJECTS)]
        self._sites: dict[str, Repository] = {name: site.project(platform, name) for name in self._names}
        self._idle = list(self._names)
        self._left = iter(range(PUSHES))
        self.ended: list[dict[str, object]] = []

    @property
    def places(self) -> list[tuple[int, str]]:
        port = self._platform.layout.ports.proxy
        return [(port, f"develop-{name}.localhost") for name in self._names]

    def first_round(self) -> None:
        """Everything is live once, and what all later deployments find is made."""
        for name in self._names:
            self._deploy(name, "first")
        self.ended.clear()

    def develop(self) -> None:
        """What one developer does until all pushes are made."""
        for number, name in self._turns():
            self._deploy(name, f"{SEED}-{number}")

    def _turns(self) -> Iterator[tuple[int, str]]:
        while True:
            with self._lock:
                number = next(self._left, None)
                if number is None:
                    return
                name = self._idle.pop(self._dice.randrange(len(self._idle)))
            yield number, name
            with self._lock:
                self._idle.append(name)

    def _deploy(self, name: str, version: str) -> None:
        site.push(self._sites[name], version)
        done = self._await_end(self._platform.request(name).raise_for_status().json()["id"])
        served = self._platform.get(f"develop-{name}.localhost").text
        self.ended.append({"state": done["state"], "right": served == version})

    def _await_end(self, number: int) -> dict[str, Any]:
        """Asks as seldom as a person would: asking is work for the platform, and not what is measured."""
        while True:
            shown = self._platform.deployment(number)
            if shown["state"] not in {"queued", "running"}:
                return shown
            time.sleep(0.5)


def main() -> None:
    """Print and write deployments per minute, and where the processors' time went."""
    print(f"BENCH_SEED={SEED}")
    with site.platform() as platform:
        platform.up()
        company = Company(platform)
        company.first_round()
        with site.visitors(company.places, CLIENTS) as failures:
            before, all_before = site.processor_seconds(platform), _busy()
            began = time.perf_counter()
            with ThreadPoolExecutor(DEVELOPERS) as pool:
                for each in [pool.submit(company.develop) for _ in range(DEVELOPERS)]:
                    each.result()
            seconds = time.perf_counter() - began
            after, all_after = site.processor_seconds(platform), _busy()
        for failure in failures[:5]:
            print(failure)
        used = {part: after[part] - before.get(part, 0.0) for part in after}
        processors = psutil.cpu_count() or 1
        report.write(
            "throughput",
            {
                "deployments": len(company.ended),
                "deployments_per_minute": len(company.ended) / seconds * 60,
                "seconds": seconds,
                "failed_requests": len(failures),
                "lost": PUSHES - sum(one["state"] == "succeeded" for one in company.ended),
                "not_what_was_pushed": sum(not one["right"] for one in company.ended),
                **{f"processor_seconds_{part}": value for part, value in used.items()},
                "processor_seconds_of_the_machine": all_after - all_before,
            },
            {
                "platform_of_all_processors": sum(used.values()) / (seconds * processors),
                "platform_of_what_was_used": sum(used.values()) / (all_after - all_before),
            },
        )


def _busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


if __name__ == "__main__":
    main()
