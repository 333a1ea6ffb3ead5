"""What may go: the releases that neither a rollback nor any environment needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """What an environment has of a release whose image is still kept.

    `succeeded` is the newest deployment there that succeeded with it. `needed` says that it is live, was live just
    before, is being deployed, or was the last to be asked for.
    """

    release: int
    environment: int
    succeeded: int | None
    needed: bool


def unneeded(uses: Iterable[Use], keep: int) -> set[int]:
    """The releases that may go: no environment needs them or counts them among its `keep` newest that succeeded."""
    kept: set[int] = set()
    everything: set[int] = set()
    ranked: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for use in uses:
        everything.add(use.release)
        if use.needed:
            kept.add(use.release)
        if use.succeeded is not None:
            ranked[use.environment].append((use.succeeded, use.release))
    for those in ranked.values():
        kept |= {release for _, release in sorted(those, reverse=True)[:keep]}
    return everything - kept
