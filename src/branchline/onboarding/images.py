"""Chooses among a Dockerfile's stages: which one runs in environments, and which one holds the tests' tools."""

from __future__ import annotations

from collections.abc import Sequence

from branchline.onboarding.dockerfile import Stage
from branchline.onboarding.draft import Draft

_TEST_NAMES = ("test", "tests", "testing", "ci", "test-runner")
_RUN_NAMES = ("runtime", "production", "prod", "release", "final", "runner", "app", "web", "deploy")
_DEVELOPMENT_NAMES = ("dev", "development", "debug", "local", "builder", "build")


def choose_stages(draft: Draft, stages: Sequence[Stage]) -> None:
    """Set the stage that runs, where it is not simply the last one."""
    if not stages:
        return
    names = [stage.name for stage in stages if stage.name]
    if draft.target in _DEVELOPMENT_NAMES or (draft.target and draft.target not in names):
        draft.target = None  # Compose files are for development more often than not
    last = stages[-1].name
    if draft.target is None and last in {*_TEST_NAMES, *_DEVELOPMENT_NAMES}:
        fitting = [name for name in names if name not in {*_TEST_NAMES, *_DEVELOPMENT_NAMES}]
        draft.target = next((name for name in _RUN_NAMES if name in fitting), fitting[-1] if fitting else None)
    elif draft.target is None and last in _RUN_NAMES and len(names) > 1:
        draft.target = last
    if draft.target:
        draft.because(f"the stage {draft.target}", "it runs in environments")


def running_stage(draft: Draft, stages: Sequence[Stage]) -> Stage | None:
    """The stage that runs."""
    named = next((stage for stage in stages if stage.name and stage.name == draft.target), None)
    return named or (stages[-1] if stages else None)


def test_stage(stages: Sequence[Stage]) -> str | None:
    """The name of the stage for tests."""
    return next((stage.name for stage in stages if stage.name in _TEST_NAMES), None)
