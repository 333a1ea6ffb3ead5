"""Manifests that were made to harm: each is refused in plain words, and soon."""

from __future__ import annotations

import time

import pytest

from branchline.domain.manifest import Manifest
from branchline.manifest_file import ManifestInvalid, parse

BASE = "project: shop\nservices:\n  web:\n    command: run\n"
NINES = "9" * 400


def doubling(shape: str) -> str:
    """Anchors that each repeat the one before nine times."""
    pairs = zip("abcdefg", "bcdefgh", strict=True)
    return "".join(f"{new}: &{new} {shape.format(','.join([f'*{old}'] * 9))}\n" for old, new in pairs)


@pytest.mark.parametrize(
    "text",
    [
        "&a\n<<: *a\n",
        "a: &a\n  <<: [*a, *a]\n",
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
        "a: &a {x: 1}\n" + doubling("{{<<: [{0}]}}"),
        "a: &a [x]\n" + doubling("[{0}]"),
        "a: !!timestamp x\n",
        "a: !!int x\n",
        "a: !!binary '@'\n",
        "a: !!python/name:os.system ''\n",
        "[" * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(600)),
        f"{BASE}    port: {'9' * 5000}\n",
        f"{BASE}    stop_grace_period: {NINES}\n",
        f"{BASE}    stop_grace_period: {NINES}s\n",
        f"{BASE}    stop_grace_period: 11000d\n",
        f"{BASE}    deploy: {{resources: {{limits: {{memory: {NINES}}}}}}}\n",
        f"{BASE}    deploy: {{resources: {{limits: {{memory: {NINES}G}}}}}}\n",
        f"{BASE}    deploy: {{resources: {{limits: {{cpus: {NINES}.0}}}}}}\n",
        BASE + "".join(f"k{n}: 1\n" for n in range(15_000)),
        "a: \ud800\n",
        "a: \0\n",
    ],
    ids=lambda text: repr(text[:30]),
)  # fmt: skip
def test_it_is_refused(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(ManifestInvalid) as caught:
        parse(text)
    assert time.monotonic() - began < 10
    assert caught.value.problems[0].line >= 1
    assert len(caught.value.sentence) < 1000


def test_aliases_and_merges_still_work() -> None:
    text = (
        "project: shop\nservices:\n  web: &web\n    command: run\n    environment: &e {A: 1}\n"
        "  worker: {<<: *web, command: work}\n  other: {command: x, environment: {<<: *e, B: on}}\n"
    )
    manifest = parse(text)
    assert isinstance(manifest, Manifest)
    assert manifest.services["worker"].environment == {"A": "1"}
    assert manifest.services["worker"].command == ("work",)
    assert manifest.services["other"].environment == {"A": "1", "B": "on"}
