"""Writes what a bench found: figures of this machine, and ratios that mean the same on any."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: Mapping[str, float], ratios: Mapping[str, float]) -> Path:
    """Write `bench/results/<name>.json` in one move, print it, and return where it is."""
    found = {"bench": name, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps({**found, "figures": _rounded(figures), "ratios": _rounded(ratios)}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n")
    partial.replace(path)
    print(text)
    return path


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def moment(text: str) -> float:
    """A time as the API writes it, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{number:.4g}") for name, number in numbers.items()}
