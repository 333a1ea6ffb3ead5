"""What a deployment finds out of what it changes, and that none fails over this."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.domain.access import Actor, Role
from branchline.domain.changes import Changes, FileChange, LayerChanges, Migration
from branchline.domain.deployment import Deployment, State
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.layers import Layer
from branchline.domain.pipeline import Stage
from branchline.operations.gate import Gate
from branchline.operations.requests import Deployments
from branchline.operations.views import Views
from branchline.ports import Revision
from branchline.wire_changes import LayerChangesView
from tests.unit.test_deploy import MANIFEST, REPOSITORY, Killed, World

DEVELOP = Layer("shop", "develop")
MIGRATION = "till/migrations/0002_till.py"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def push(world: World, subject: str, **files: str) -> Revision:
    """Push a commit of the manifest and these files."""
    world.repository.commit("develop", {"branchline.yaml": MANIFEST, "Dockerfile": "FROM scratch\n", **files}, subject)
    return world.source.resolve("shop", REPOSITORY, "develop")


def deploy(world: World, revision: Revision) -> Deployment:
    asked = world.ask(revision)
    world.runner().run(asked)
    return world.deployment(asked.id)


def changes(world: World, number: int) -> Changes:
    with world.store.transaction() as records:
        found = records.deployments.changes(number)
    assert found is not None
    return found


def note(world: World, number: int, stage: Stage) -> str:
    with world.store.transaction() as records:
        return next(one.note for one in records.deployments.stages(number) if one.name is stage)


def test_the_first_release_has_nothing_to_compare_with(world: World) -> None:
    done = deploy(world, push(world, "First"))
    assert changes(world, done.id) == Changes()
    assert note(world, done.id, Stage.PREPARE).endswith("; the first release here")


def test_commits_keys_and_migrations_since_the_live_release(world: World) -> None:
    world.configs.put("shop", "_common", {"SHARED": "shared-secret"})
    world.configs.put("shop", "develop", {"DSN": "first-secret", "OLD": "old-secret", "SAME": "same-secret"})
    first = deploy(world, push(world, "First", **{"till/migrations/0001_initial.py": "1"}))
    world.configs.put("shop", "develop", {"DSN": "second-secret", "API_KEY": "third-secret", "OLD": None})
    revisions = [push(world, "Add a basket"), push(world, "Add the till", **{MIGRATION: "2", "till/models.py": "2"})]
    second = deploy(world, revisions[-1])
    found = changes(world, second.id)
    assert (second.state, found.since, found.before) == (State.SUCCEEDED, first.id, first.commit)
    assert [one.subject for one in found.came.newest] == ["Add the till", "Add a basket"]
    assert (found.came.total, found.went.total, found.unknown) == (2, 0, "")
    assert found.migrations == (
        Migration("till/migrations/0001_initial.py", FileChange.REMOVED),
        Migration(MIGRATION, FileChange.ADDED),
    )
    assert found.config == (LayerChanges("develop", 1, 2, set=("API_KEY",), changed=("DSN",), hidden=("OLD",)),)
    told = "; since deployment 1: 2 commits, 3 config keys, 2 migrations"
    assert note(world, second.id, Stage.PREPARE).endswith(told)
    assert "-secret" not in json.dumps(found.to_json()) + world.log(second.id)


def test_going_back_says_which_commits_went(world: World) -> None:
    old = push(world, "First")
    deploy(world, old)
    deploy(world, push(world, "A mistake", **{MIGRATION: "2"}))
    back = changes(world, deploy(world, old).id)
    assert (back.came.total, [one.subject for one in back.went.newest]) == (0, ["A mistake"])
    assert back.migrations == (Migration(MIGRATION, FileChange.REMOVED),)


def test_what_is_compared_with_is_what_was_live_not_what_failed_since(world: World) -> None:
    first = deploy(world, push(world, "First"))
    world.containers.missing_commands.add("serve")
    failed = deploy(world, push(world, "Fails", **{MIGRATION: "2"}))
    world.containers.missing_commands.clear()
    third = changes(world, deploy(world, push(world, "Mended", **{MIGRATION: "2"})).id)
    assert failed.state is State.FAILED
    assert changes(world, failed.id).migrations == third.migrations == (Migration(MIGRATION, FileChange.ADDED),)
    assert (third.since, third.came.total) == (first.id, 2)


def test_a_layer_that_is_inherited_no_more_is_compared_with_nothing(world: World) -> None:
    world.configs.put("shop", "_common", {"SHARED": "1"})
    deploy(world, push(world, "First"))
    alone = MANIFEST.replace("develop: {on: {branch: develop}}", "develop: {on: {branch: develop}, inherits: nothing}")
    world.repository.commit("develop", {"branchline.yaml": alone, "Dockerfile": "FROM scratch\n"})
    found = changes(world, deploy(world, world.source.resolve("shop", REPOSITORY, "develop")).id)
    assert found.config == (LayerChanges("_common", 1, 0, removed=("SHARED",)),)


def test_where_git_cannot_say_the_deployment_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(world, push(world, "First"))

    def fail(*_words: object) -> None:
        raise PlatformBroke("git could not compare the two commits: no.", code="comparison_failed", hint="Mend it.")

    monkeypatch.setattr(world.source, "compare", fail)
    world.configs.put("shop", "develop", {"A": "1"})
    done = deploy(world, push(world, "Second", **{MIGRATION: "2"}))
    found = changes(world, done.id)
    assert (done.state, found.unknown) == (State.SUCCEEDED, "git could not compare the two commits: no.")
    assert (found.came.total, found.migrations, found.keys) == (0, (), ["A"])
    assert "What changed is not known: git could not compare the two commits: no. Mend it." in world.log(done.id)


def test_where_a_version_of_the_config_is_gone_the_deployment_goes_on(world: World) -> None:
    world.configs.put("shop", "_common", {"SHARED": "1"})
    world.configs.put("shop", "develop", {"A": "1"})
    deploy(world, push(world, "First"))
    world.configs.put("shop", "_common", {"SHARED": "2"})
    world.configs.put("shop", "develop", {"A": "2"})
    world.configs.delete(DEVELOP, 1)
    done = deploy(world, push(world, "Second"))
    assert done.state is State.SUCCEEDED
    assert changes(world, done.id).config == (
        LayerChanges("_common", 1, 2, changed=("SHARED",)),
        LayerChanges("develop", 1, 2, unknown="Version 1 is gone."),
    )
    assert "Which keys changed is not known: Version 1 is gone." in world.log(done.id)
    assert "config keys unknown" in note(world, done.id, Stage.PREPARE)


def test_where_nobody_wrote_down_the_config_of_before(world: World) -> None:
    first = deploy(world, push(world, "First"))
    with world.store.transaction() as records:
        records.deployments._change(first.id, config=None)
    done = deploy(world, push(world, "Second"))
    assert changes(world, done.id).config_unknown == "Nobody wrote down which config deployment 1 was given."
    assert changes(world, done.id).came.total == 1


def test_the_same_commit_and_config_ask_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = push(world, "First")
    first = deploy(world, revision)
    monkeypatch.delattr(type(world.source), "compare")
    again = deploy(world, revision)
    assert changes(world, again.id) == Changes(since=first.id, before=first.commit)


@pytest.mark.parametrize("moment", ["unrecorded", "after"])
def test_who_goes_on_finds_what_was_found_out_before(
    world: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(world, push(world, "First"))
    asked = world.ask(push(world, "Second", **{MIGRATION: "2"}))
    world.die(moment, Stage.PREPARE)
    with pytest.raises(Killed):
        world.runner().run(asked)
    before = changes(world, asked.id)
    assert before.migrations_total == 1
    monkeypatch.delattr(type(world.source), "compare")
    assert world.go_on(asked.id).state is State.SUCCEEDED
    assert changes(world, asked.id) == before


def test_it_is_known_before_anything_starts(world: World) -> None:
    deploy(world, push(world, "First"))
    known: list[int] = []
    start = world.containers.start

    def look_first(*words: object) -> object:
        known.append(changes(world, 2).came.total)
        return start(*words)

    world.containers.start = look_first
    deploy(world, push(world, "Second"))
    assert known == [1]


def test_names_of_productions_keys_are_for_those_who_may_see_them(world: World) -> None:
    world.configs.put("shop", "develop", {"A": "1"})
    deploy(world, push(world, "First"))
    world.configs.put("shop", "develop", {"B": "2"})
    done = deploy(world, push(world, "Second"))
    people = Deployments(world.store, Gate(world.store), Views(str), world.source, "test")
    viewer, maintainer = (Actor("ada", "token", {"shop": role}) for role in (Role.VIEWER, Role.MAINTAINER))

    def seen(actor: Actor) -> LayerChangesView:
        found = people.show(actor, done.id).changes
        assert found
        return found.config[0]

    assert (seen(viewer).set, seen(maintainer).set) == (["B"], ["B"])
    with world.store.transaction() as records:  # the same deployment, had it been production's
        about = records.deployments.get(done.id)
        records.deployments._t.environments[about.environment_id] = replace(
            world.environment, name="production", tier=Tier.PRODUCTION
        )
        records.deployments._change(done.id, environment="production")
    assert (seen(viewer).set, seen(viewer).after, seen(maintainer).set) == ([], 2, ["B"])
    assert seen(viewer).unknown == "Your role does not show which keys it has."
