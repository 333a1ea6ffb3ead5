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


def build_key(commit: str, manifest: Manifest) -> str:
    """Name what goes into a build: a release of the same key is the same image, so it need not be built again."""
    inputs = {"commit": commit, "build": manifest.build.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
