"""What differs between two releases: keys of layers, commits, and which files are migrations."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from branchline.deployment_records import StageRecord
from branchline.domain.changes import (
    MOST_MIGRATIONS,
    Changes,
    CodeChanges,
    Commit,
    Commits,
    FileChange,
    LayerChanges,
    Migration,
    compare_layer,
    layers_that_differ,
)
from branchline.domain.config import Secret
from branchline.domain.deployment import Deployment, Failure, State, Trigger
from branchline.domain.layers import HIDDEN, Document, Hidden, Layer
from branchline.domain.migrations import ENDINGS, is_migration
from branchline.domain.pipeline import Stage, StageState
from branchline.operations.outcome import outcome
from branchline.wire_changes import ChangesView

DEVELOP = Layer("shop", "develop")


@pytest.mark.parametrize(
    "path",
    [
        "migrations/0001_initial.py",
        "shop/migrations/0002_till.py",
        "src/shop/till/migrations/0003_squashed_0001_0002.py",
        "alembic/versions/ae1027a6acf_add_a_till.py",
        "shop/store/migrations/versions/0007_people.py",
        "shop/db/versions/1a2b3c4d5e6f_add_a_till.py",
        "db/migrate/20300102030405_create_tills.rb",
        "engines/till/db/migrate/20300102030405_create_tills.rb",
        "migrations/001.sql",
        "db/migrations/up/002_till.sql",
        "prisma/migrations/20300102030405_till/migration.sql",
    ],
)
def test_what_is_a_migration(path: str) -> None:
    assert is_migration(path)
    assert path.endswith(ENDINGS), "or git is not asked about it"


@pytest.mark.parametrize(
    "path",
    [
        "shop/migrations/__init__.py",
        "shop/migrations/helpers.py",
        "shop/migrations/0001_initial.pyc",
        "shop/migrations/0001_initial.py.orig",
        "shop/mymigrations/0001_initial.py",
        "shop/migrations/old/0001_initial.py",
        "alembic/versions/__init__.py",
        "api/versions/current.py",
        "alembic/env.py",
        "db/migrate.rb",
        "db/schema.rb",
        "queries/001.sql",
        "docs/migrations.sql",
        "migrations/README.md",
    ],
)
def test_what_is_no_migration(path: str) -> None:
    assert not is_migration(path)


def document(version: int, **entries: str | None) -> Document:
    kept: dict[str, Secret | Hidden] = {key: HIDDEN if one is None else Secret(one) for key, one in entries.items()}
    return Document(DEVELOP, version, kept)


def test_a_layer_is_compared_key_by_key() -> None:
    before = document(3, SAME="1", CHANGED="1", GONE="1", HIDDEN="1", STAYS=None, SHOWN=None, GONE_HIDDEN=None)
    after = document(5, SAME="1", CHANGED="2", HIDDEN=None, STAYS=None, SHOWN="1", NEW="1", NEW_HIDDEN=None)
    assert compare_layer(before, after) == LayerChanges(
        "develop",
        3,
        5,
        set=("NEW", "SHOWN"),
        changed=("CHANGED",),
        hidden=("HIDDEN", "NEW_HIDDEN"),
        removed=("GONE", "GONE_HIDDEN"),
    )


def test_layers_that_differ_are_those_of_other_versions() -> None:
    before = {"shop/_common": 1, "shop/env/develop": 3, "shop/env/login": 2}
    after = {"shop/_common": 1, "shop/env/login": 4}
    assert layers_that_differ(before, after) == {DEVELOP: (3, 0), Layer("shop", "login"): (2, 4)}
    assert layers_that_differ(before, before) == {}


COMMIT = Commit("c" * 40, "Ada", "2030-01-02T03:04:05+00:00", "Add the till")
CHANGES = Changes(
    since=41,
    before="b" * 40,
    came=Commits(3, (COMMIT,)),
    went=Commits(1, (COMMIT,)),
    migrations_total=1,
    migrations=(Migration("shop/migrations/0002_till.py", FileChange.ADDED),),
    config=(
        LayerChanges("_common", 0, 1, set=("A", "B")),
        LayerChanges("develop", 3, 4, changed=("A",), hidden=("C",), removed=("D",)),
        LayerChanges("login", 1, 2, unknown="It is gone."),
    ),
)


def test_changes_survive_the_database_and_the_wire() -> None:
    kept = json.loads(json.dumps(CHANGES.to_json()))
    assert Changes.from_json(kept) == CHANGES
    assert ChangesView.model_validate(kept).model_dump(mode="json", exclude={"came", "went"}) == {
        key: value for key, value in kept.items() if key not in {"came", "went"}
    }
    assert ChangesView.model_validate(Changes().to_json()) == ChangesView()


def test_what_a_newer_version_kept_can_be_read() -> None:
    assert Changes.from_json({**CHANGES.to_json(), "weather": "fine"}) == CHANGES


def test_changes_in_one_line() -> None:
    assert CHANGES.keys == ["A", "B", "C", "D"]
    assert str(CHANGES) == "since deployment 41: 3 commits and 1 back, config keys unknown, 1 migration"
    known = Changes(since=1, came=Commits(1, (COMMIT,)), config=CHANGES.config[:2])
    assert str(known) == "since deployment 1: 1 commit, 4 config keys, 0 migrations"
    assert str(Changes(since=1, unknown="It is gone.")) == "since deployment 1: commits unknown, 0 config keys"
    assert str(Changes()) == "the first release here"


def test_of_files_only_migrations_are_kept_and_not_too_many() -> None:
    files = {f"a/migrations/{number:04}_x.py": FileChange.ADDED for number in range(MOST_MIGRATIONS + 5)}
    found = Changes(since=1).with_code(CodeChanges(Commits(), Commits(), {**files, "a/models.py": FileChange.CHANGED}))
    assert (found.migrations_total, len(found.migrations)) == (MOST_MIGRATIONS + 5, MOST_MIGRATIONS)
    assert found.migrations[0] == Migration("a/migrations/0000_x.py", FileChange.ADDED)


AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
WHY = Failure("tests_failed", "The tests failed: 2 failed.")
SICK = Failure("sick_after_switch", "5 s after the switch, web 1 turned sick.")


def deployment(number: int, state: State, **more: object) -> Deployment:
    standard = {"switched_at": AT if state is State.SUCCEEDED else None} | more
    return Deployment(
        number, "shop", "develop", 1, "refs/heads/develop", "c" * 40, "", state, "ada", Trigger.CLI, "", AT, **standard
    )


def after(seconds: float) -> Deployment:
    return deployment(43, State.SUCCEEDED, switched_at=AT + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("about", "live", "replaced_by", "told"),
    [
        (deployment(42, State.QUEUED), False, None, "Waits for its turn."),
        (deployment(42, State.RUNNING), False, None, "Under way, in test."),
        (
            deployment(42, State.RUNNING, cancel_requested=True, cancelled_by="bob"),
            False,
            None,
            "Under way, in test. bob asked to cancel it.",
        ),
        (deployment(42, State.SUCCEEDED), True, None, "Live since 02 Jan 2030, 03:04:05 UTC."),
        (deployment(42, State.SUCCEEDED), False, after(3 * 3600 + 5), "Went live; replaced by 43 after 3 h."),
        (deployment(42, State.SUCCEEDED), False, after(90), "Went live; replaced by 43 after 90 s."),
        (deployment(42, State.SUCCEEDED), False, after(600), "Went live; replaced by 43 after 10 min."),
        (deployment(42, State.SUCCEEDED), False, after(5 * 86400), "Went live; replaced by 43 after 5 days."),
        (deployment(42, State.SUCCEEDED), False, None, "Went live, and is not any more."),
        (deployment(42, State.SUCCEEDED, switched_at=None), True, None, "Live."),
        (
            deployment(42, State.FAILED, failed_stage="test", failure=WHY),
            False,
            None,
            "Failed in test: The tests failed: 2 failed.",
        ),
        (
            deployment(42, State.BROKEN, failed_stage="watch", failure=WHY),
            True,
            None,
            "Broke in watch, and is live all the same: The tests failed: 2 failed.",
        ),
        (
            deployment(
                42, State.UNDONE, replaces=41, failure=SICK, switched_at=AT, undone_at=AT + timedelta(seconds=12)
            ),
            False,
            None,
            "Undone 12 s after the switch, deployment 41 is live again: 5 s after the switch, web 1 turned sick.",
        ),
        (deployment(42, State.UNDONE), False, None, "Undone, nothing was live before."),
        (deployment(42, State.CANCELLED, cancelled_by="bob"), False, None, "Cancelled by bob before it began."),
        (
            deployment(42, State.CANCELLED, cancelled_by="bob", failed_stage="test"),
            False,
            None,
            "Cancelled by bob in test.",
        ),
        (deployment(42, State.CANCELLED), False, None, "Cancelled by somebody before it began."),
        (
            deployment(42, State.SUPERSEDED, superseded_by=43),
            False,
            None,
            "Superseded by 43, a newer one, before it began.",
        ),
    ],
)
def test_the_outcome_in_a_sentence(about: Deployment, live: bool, replaced_by: Deployment | None, told: str) -> None:
    stages = [
        StageRecord(Stage.BUILD, StageState.PASSED, AT, AT, ""),
        StageRecord(Stage.TEST, StageState.RUNNING, AT, None, ""),
    ]
    assert outcome(about, stages, live=live, replaced_by=replaced_by) == told


def test_every_state_has_an_outcome() -> None:
    assert all(outcome(deployment(1, state), [], live=False, replaced_by=None) for state in State)
