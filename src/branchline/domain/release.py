"""Releases: what was built once and can run anywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from branchline.domain.manifest import Manifest


@dataclass(frozen=True)
class Release:
    """Immutable: a commit, its image by digest and the manifest as it was. `number` counts per project."""

    id: int
    project: str
    number: int
    commit: str
    image: str
    manifest: Manifest


def build_key(commit: str, manifest: Manifest, environment: str) -> str:
    """Name what goes into a build: a release of the same key is the same image, so it need not be built again.

    The environment counts where the build is given secrets: what is made with production's goes nowhere else.
    """
    inputs: dict[str, object] = {"commit": commit, "build": manifest.build.model_dump(mode="json")}
    if manifest.build.secrets:
        inputs["environment"] = environment
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
