"""What the platform takes: memory of every process at rest and after 200 deployments, seconds until it is up."""

from __future__ import annotations

import os
import time

import report
import site_to_deploy as site

DEPLOYMENTS = int(os.environ.get("BENCH_DEPLOYMENTS") or 200)
SITES = 4
REST = 30.0
"""Seconds without work before memory is read."""


def main() -> None:
    """Print and write megabytes of each part, and how they grew."""
    figures: dict[str, float] = {}
    with site.platform() as platform:
        began = time.perf_counter()
        platform.up()
        figures["up_from_nothing_seconds"] = time.perf_counter() - began
        platform.stop()
        began = time.perf_counter()
        platform.up()
        figures["up_from_stopped_seconds"] = time.perf_counter() - began

        time.sleep(REST)
        fresh = site.memory(platform)
        figures["at_rest_anonymous_mb"] = sum(site.memory(platform, "Pss_Anon").values())
        sites = {f"site{number}": site.project(platform, f"site{number}") for number in range(SITES)}

        def deploy(rounds: range) -> None:
            for number in rounds:
                asked = []
                for name, repository in sites.items():
                    site.push(repository, str(number))
                    asked.append(platform.request(name).raise_for_status().json()["id"])
                for one in asked:
                    done = platform.ended(one)
                    if done["state"] != "succeeded":
                        raise RuntimeError(platform.log(one))

        deploy(range(5))  # what every process needs once it has worked at all
        time.sleep(REST)
        worked = site.memory(platform)
        deploy(range(5, 5 + DEPLOYMENTS // SITES))
        time.sleep(REST)
        after = site.memory(platform)
    for part, megabytes in fresh.items():
        figures[f"{part}_mb"] = megabytes
        figures[f"{part}_mb_after"] = after[part]
    figures["at_rest_mb"] = sum(fresh.values())
    figures["after_20_deployments_mb"] = sum(worked.values())
    figures[f"after_{DEPLOYMENTS}_more_mb"] = sum(after.values())
    ratios = {
        "growth": sum(after.values()) / sum(fresh.values()),
        "growth_since_20_deployments": sum(after.values()) / sum(worked.values()),
    }
    report.write("footprint", figures, ratios)


if __name__ == "__main__":
    main()
