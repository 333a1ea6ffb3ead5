"""What changes with a deployment: found out once, before its containers start, and kept with it."""

from __future__ import annotations

from dataclasses import replace

from branchline.domain.changes import Changes, LayerChanges, compare_layer, layers_that_differ
from branchline.domain.deployment import Deployment
from branchline.domain.errors import PlatformBroke
from branchline.domain.migrations import ENDINGS
from branchline.operations.scene import Scene
from branchline.ports import ConfigReader, Source


class WhatChanged:
    """Compares with what was live. What it cannot find out is said instead: no deployment fails over this."""

    def __init__(self, source: Source, config: ConfigReader) -> None:
        self._source = source
        self._config = config

    def note(self, scene: Scene) -> Changes:
        """What differs from what `replaces` says was live; a repeat returns what was kept."""
        with scene.record() as records:
            if (known := records.deployments.changes(scene.deployment.id)) is not None:
                return known
            about = records.deployments.get(scene.deployment.id)
            before = records.deployments.get(about.replaces) if about.replaces else None
        found = self._with_config(scene, self._with_code(scene, about, before), about, before) if before else Changes()
        with scene.record() as records:
            records.deployments.note_changes(about.id, found)
        return found

    def _with_code(self, scene: Scene, about: Deployment, before: Deployment) -> Changes:
        changes = Changes(since=before.id, before=before.commit)
        if about.commit == before.commit:
            return changes
        try:
            return changes.with_code(self._source.compare(about.project, before.commit, about.commit, ENDINGS))
        except PlatformBroke as error:
            scene.log.write(f"What changed is not known: {error.sentence} {error.hint}")
            return replace(changes, unknown=error.sentence)

    def _with_config(self, scene: Scene, changes: Changes, about: Deployment, before: Deployment) -> Changes:
        if before.config is None or about.config is None:
            nobody = f"Nobody wrote down which config deployment {before.id} was given."
            return replace(changes, config_unknown=nobody)
        layers = []
        for layer, (old, new) in layers_that_differ(before.config, about.config).items():
            try:
                was, now = (self._config.layer(scene.environment, layer, version) for version in (old, new))
                layers.append(compare_layer(was, now))
            except PlatformBroke as error:
                scene.log.write(f"Which keys changed is not known: {error.sentence}")
                layers.append(LayerChanges(layer.name, old, new, unknown=error.sentence))
        return replace(changes, config=tuple(layers))
