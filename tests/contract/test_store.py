"""The promises of `Store` and `Records`, on the fake and on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from branchline.config_records import Done
from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import AuditEvent, Kind, Wanted
from branchline.domain.chain import Check, Head, Link, Seal
from branchline.domain.changes import Changes, Commit, Commits, FileChange, LayerChanges, Migration
from branchline.domain.deployment import Deployment, Failure, State, Trigger
from branchline.domain.environment import Destination, Environment, Inherits, Tier
from branchline.domain.errors import Conflict, NotFound, TakenOver
from branchline.domain.layers import Layer
from branchline.domain.manifest import Manifest
from branchline.domain.pipeline import Stage, StageState
from branchline.domain.project import Project
from branchline.operations.gate import Gate
from branchline.operations.requests import Deployments
from branchline.operations.views import Views
from branchline.ports import Revision
from branchline.records import GONE_TEXT, Store
from tests.fakes.source import FakeSource

ADA = Actor("ada", "token ada", {EVERYWHERE: Role.ADMIN}, source="192.0.2.7")
BOB = Actor("bob", "token bob", {EVERYWHERE: Role.DEVELOPER})

MANIFEST = Manifest.model_validate({"project": "shop", "services": {"web": {"command": "run"}}})


@pytest.fixture
def project(store: Store) -> Project:
    with store.transaction() as records:
        return records.projects.add(f"p{uuid4().hex[:10]}", "/srv/shop.git")


def environment(store: Store, project: Project, name: str = "develop", tier: Tier = Tier.NONPROD) -> Environment:
    with store.transaction() as records:
        return records.environments.ensure(project, Destination(name, tier))


def queue(store: Store, place: Environment, commit: str = "a" * 40) -> Deployment:
    with store.transaction() as records:
        revision = Revision("refs/heads/develop", commit, "subject")
        return records.deployments.add(place, revision, actor="ada", trigger=Trigger.CLI, reason="")


def claim_until_mine(store: Store, mine: set[int], tier: Tier = Tier.NONPROD) -> list[int]:
    """Claims in order; the shared database may hold what other tests queued, which is passed over."""
    claimed = []
    with store.transaction() as records:
        while (one := records.deployments.claim(tier, "runner-1")) is not None:
            if one.id in mine:
                claimed.append(one.id)
    return claimed


def test_a_failed_transaction_leaves_nothing(store: Store, project: Project) -> None:
    def interrupted() -> None:
        with store.transaction() as records:
            records.projects.add("ghost" + project.name[:8], "/x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with store.transaction() as records, pytest.raises(NotFound):
        records.projects.get("ghost" + project.name[:8])


def test_a_project_is_added_once(store: Store, project: Project) -> None:
    with store.transaction() as records, pytest.raises(Conflict) as refused:
        records.projects.add(project.name, "/elsewhere")
    assert refused.value.code == "project_exists"


def test_environments_get_slots_of_their_own(store: Store, project: Project) -> None:
    places = [environment(store, project, name) for name in ("develop", "staging", "develop")]
    assert places[0] == places[2]
    assert places[0].slot != places[1].slot
    assert min(places[0].slot, places[1].slot) >= 1


def test_hostnames_belong_to_one_environment(store: Store, project: Project) -> None:
    develop, staging = environment(store, project), environment(store, project, "staging")
    mine, other = f"a.{project.name}.test", f"b.{project.name}.test"
    with store.transaction() as records:
        records.environments.claim_hostnames(develop, [mine, other])
    with pytest.raises(Conflict) as refused, store.transaction() as records:
        records.environments.claim_hostnames(staging, [other])
    assert refused.value.code == "hostname_taken"
    with store.transaction() as records:
        records.environments.claim_hostnames(develop, [mine])
        records.environments.claim_hostnames(staging, [other])
        assert records.environments.hostnames(develop) == [mine]
        assert records.environments.hostnames(staging) == [other]


def test_environments_of_a_tier_and_those_at_work(store: Store, project: Project) -> None:
    develop, staging = environment(store, project), environment(store, project, "staging")
    production = environment(store, project, "production", Tier.PRODUCTION)
    asked, waits = queue(store, develop), queue(store, develop)
    claim_until_mine(store, {asked.id})
    with store.transaction() as records:
        assert records.deployments.under_way(develop) == [asked.id, waits.id]
        assert records.deployments.under_way(staging) == []
        records.deployments.finish(waits.id, State.SUPERSEDED)
        assert records.deployments.under_way(develop) == [asked.id]
        mine = [one for one in records.environments.of_tier(Tier.NONPROD) if one.project == project.name]
        assert mine == [develop, staging]
        assert production in records.environments.of_tier(Tier.PRODUCTION)
        assert {develop.id, staging.id} & records.deployments.at_work(Tier.NONPROD) == {develop.id}
        assert production.id not in records.deployments.at_work(Tier.PRODUCTION)
        records.deployments.finish(asked.id, State.FAILED)
        assert records.deployments.under_way(develop) == []
        assert develop.id not in records.deployments.at_work(Tier.NONPROD)


def test_who_has_a_hostname(store: Store, project: Project) -> None:
    develop, staging = environment(store, project), environment(store, project, "staging")
    mine, other = (f"{name}-{project.name}.test" for name in ("develop", "staging"))
    with store.transaction() as records:
        records.environments.claim_hostnames(develop, [mine])
        records.environments.claim_hostnames(staging, [other])
        assert records.environments.owners([mine, other, f"free-{project.name}.test"]) == {
            mine: develop.id,
            other: staging.id,
        }
        assert records.environments.owners([]) == {}


def test_trouble_stays_until_something_else_is_live(store: Store, project: Project) -> None:
    place = environment(store, project)
    with store.transaction() as records:
        records.environments.note_trouble(place, "Web 1 is missing.")
    with store.transaction() as records:
        assert records.environments.get(project.name, "develop").trouble == "Web 1 is missing."
        records.environments.set_live(place, None)
        assert records.environments.get(project.name, "develop").trouble == ""


def test_environments_and_releases_are_looked_up_together(store: Store, project: Project) -> None:
    places = [environment(store, project, name) for name in ("develop", "staging")]
    manifest = Manifest.model_validate({"project": project.name, "services": {"web": {"command": "serve"}}})
    hosts = [f"{letter}-{project.name}.test" for letter in "ba"]
    with store.transaction() as records:
        records.environments.claim_hostnames(places[0], hosts)
        release = records.releases.add(project, "a" * 40, "key", "image@sha256:1", manifest)
        found = records.environments.some({one.id for one in places} | {10**9})
        assert found == {places[0].id: (places[0], hosts[1]), places[1].id: (places[1], None)}
        assert records.environments.some(set()) == {}
        assert records.releases.built({release.id, 10**9}) == {release.id: (release.number, release.image)}
        assert records.releases.built([]) == {}


def test_a_release_of_the_same_inputs_is_the_same_release(store: Store, project: Project) -> None:
    with store.transaction() as records:
        first = records.releases.add(project, "a" * 40, "key-1", "shop@sha256:1", MANIFEST)
        again = records.releases.add(project, "a" * 40, "key-1", "shop@sha256:2", MANIFEST)
        second = records.releases.add(project, "b" * 40, "key-2", "shop@sha256:3", MANIFEST)
        assert again == first
        assert (first.number, second.number) == (1, 2)
        assert records.releases.find(project, "key-2") == second
        assert records.releases.get(first.id).manifest == MANIFEST


def test_newer_deployments_supersede_those_that_wait(store: Store, project: Project) -> None:
    develop, staging = environment(store, project), environment(store, project, "staging")
    first, elsewhere, newest = queue(store, develop), queue(store, staging), queue(store, develop)
    with store.transaction() as records:
        assert records.deployments.supersede(newest) == [first.id]
        ended = records.deployments.get(first.id)
        assert (ended.state, ended.superseded_by) == (State.SUPERSEDED, newest.id)
        assert records.deployments.get(elsewhere.id).state is State.QUEUED


def test_one_deployment_of_an_environment_runs_at_a_time(store: Store, project: Project) -> None:
    develop, staging = environment(store, project), environment(store, project, "staging")
    first, second, elsewhere = queue(store, develop), queue(store, develop), queue(store, staging)
    mine = {first.id, second.id, elsewhere.id}
    assert set(claim_until_mine(store, mine)) == {first.id, elsewhere.id}
    with store.transaction() as records:
        assert records.deployments.finish(first.id, State.SUCCEEDED)
    assert claim_until_mine(store, mine) == [second.id]


def test_a_tier_claims_its_own_only(store: Store, project: Project) -> None:
    production = environment(store, project, "production", Tier.PRODUCTION)
    asked = queue(store, production)
    assert claim_until_mine(store, {asked.id}) == []
    assert claim_until_mine(store, {asked.id}, Tier.PRODUCTION) == [asked.id]


def test_projects_with_less_running_come_first(store: Store, project: Project) -> None:
    with store.transaction() as records:
        other = records.projects.add(f"q{uuid4().hex[:10]}", "/srv/other.git")
    places = [environment(store, project, name) for name in ("one", "two", "three")]
    waiting = [queue(store, place) for place in places]
    quiet = queue(store, environment(store, other))
    order = claim_until_mine(store, {one.id for one in (*waiting, quiet)})
    assert order.index(quiet.id) == 1


def test_claiming_from_many_threads_gives_each_deployment_once(store: Store, project: Project) -> None:
    asked = {queue(store, environment(store, project, f"e{number}")).id for number in range(8)}
    claimed: list[int] = []

    def work() -> None:
        while True:
            with store.transaction() as records:
                one = records.deployments.claim(Tier.NONPROD, "runner-1")
            if one is None:
                return
            claimed.append(one.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leftover = claim_until_mine(store, asked)  # a claim may have looked away from what another had locked
    mine = [one for one in claimed if one in asked] + leftover
    assert sorted(mine) == sorted(asked)


def test_an_end_is_final(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    why = Failure("tests_failed", "The tests failed.", "Look.")
    with store.transaction() as records:
        assert records.deployments.finish(asked.id, State.FAILED, Stage.TEST, why)
        assert not records.deployments.finish(asked.id, State.SUCCEEDED)
        ended = records.deployments.get(asked.id)
    assert (ended.state, ended.failed_stage, ended.failure) == (State.FAILED, Stage.TEST, why)
    assert ended.finished_at is not None


def test_what_is_replaced_is_noted_once(store: Store, project: Project) -> None:
    place = environment(store, project)
    old, new = queue(store, place), queue(store, place)
    with store.transaction() as records:
        records.environments.set_live(place, old.id)
        assert records.deployments.note_replaces(new.id) == old.id
        records.environments.set_live(place, new.id)
        assert records.deployments.note_replaces(new.id) == old.id
        records.deployments.note_config(new.id, {"shop/_common": 0, "shop/env/develop": 4})
        records.deployments.note_config(new.id, {"shop/_common": 1, "shop/env/develop": 9})
        assert records.deployments.get(new.id).config == {"shop/_common": 0, "shop/env/develop": 4}


def test_what_changed_is_kept_once_and_comes_with_no_list(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    commit = Commit("c" * 40, "Ä. Lovelace", "2030-01-02T03:04:05+01:00", "Add \u2028 the till")
    keys = LayerChanges("develop", 3, 4, set=("A",), changed=("B",), hidden=("C",), removed=("D",))
    file = Migration("till/migrations/0002_ü.py", FileChange.ADDED)
    found = Changes(1, "b" * 40, Commits(101, (commit,)), Commits(1, (commit,)), 1, (file,), (keys,))
    with store.transaction() as records:
        assert records.deployments.changes(asked.id) is None
        records.deployments.note_changes(asked.id, found)
        records.deployments.note_changes(asked.id, Changes())
    with store.transaction() as records:
        assert records.deployments.changes(asked.id) == found
        assert records.deployments.page({project.name}, None, None, 1) == [asked]


def test_who_asked_how_and_from_where_is_kept(store: Store, project: Project) -> None:
    place, revision = environment(store, project), Revision("refs/heads/develop", "a" * 40, "subject")
    with store.transaction() as records:
        why = {"actor": "ada", "trigger": Trigger.CLI, "reason": "why not"}
        asked = records.deployments.add(place, revision, **why, proof="token laptop", source="10.0.0.7")
        assert (asked.proof, asked.source, asked.runner) == ("token laptop", "10.0.0.7", None)
    claim_until_mine(store, {asked.id})
    with store.transaction() as records:
        assert records.deployments.get(asked.id).runner == "runner-1"
        records.deployments.take_over(asked.id, "runner-2", "runner-1")
        assert records.deployments.get(asked.id).runner == "runner-2"


def test_the_first_who_cancels_is_remembered(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    with store.transaction() as records:
        assert records.deployments.get(asked.id).cancelled_by is None
        records.deployments.ask_to_cancel(asked.id, "bob")
        records.deployments.ask_to_cancel(asked.id, "eve")
        about = records.deployments.get(asked.id)
    assert (about.cancel_requested, about.cancelled_by) == (True, "bob")


def test_when_traffic_came_and_went_is_noted_once(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    for note, moment in (("note_switched", "switched_at"), ("note_undone", "undone_at")):
        with store.transaction() as records:
            assert getattr(records.deployments.get(asked.id), moment) is None
            assert getattr(records.deployments, note)(asked.id)
            first = getattr(records.deployments.get(asked.id), moment)
            assert abs(datetime.now(UTC) - first) < timedelta(minutes=5)
        with store.transaction() as records:
            assert not getattr(records.deployments, note)(asked.id)
            assert getattr(records.deployments.get(asked.id), moment) == first


def test_a_deployment_is_replaced_by_the_one_that_stayed(store: Store, project: Project) -> None:
    place, elsewhere = environment(store, project), environment(store, project, "login")
    old, failed, undone, stayed, later = (queue(store, place) for _ in range(5))
    stranger = queue(store, elsewhere)
    with store.transaction() as records:
        deployments = records.deployments
        records.environments.set_live(place, old.id)
        for one in (failed, undone, stayed, stranger):
            deployments.note_replaces(one.id)
        deployments.note_switched(undone.id)
        deployments.note_undone(undone.id)
        deployments.note_switched(stranger.id)
        assert deployments.replaced_by(old) is None
        deployments.note_switched(stayed.id)
        records.environments.set_live(place, stayed.id)
        deployments.note_replaces(later.id)
        deployments.note_switched(later.id)
        replacing = deployments.replaced_by(old)
        assert replacing
        assert replacing.id == stayed.id


def test_an_environment_inherits_what_was_last_said(store: Store, project: Project) -> None:
    for inherits in (Inherits.COMMON, Inherits.DEVELOP, Inherits.NOTHING):
        with store.transaction() as records:
            made = records.environments.ensure(project, Destination("staging", Tier.NONPROD, inherits))
            assert made.inherits is inherits
            assert records.environments.get(project.name, "staging") == made


def test_changes_of_config_are_noted_before_and_after(store: Store, project: Project) -> None:
    layer = Layer(project.name, "login")
    with store.transaction() as records:
        first = records.config.begin(project, layer, 0, ADA, {"A": Done.SET, "B": Done.HIDDEN})
        other = records.config.begin(project, Layer(project.name, "develop"), 0, ADA, {"C": Done.REMOVED})
    with store.transaction() as records:
        second = records.config.begin(project, layer, 0, BOB, {"A": Done.REMOVED})
        mine = [one.id for one in records.config.unfinished() if one.layer.project == project.name]
        assert mine == [first, other, second]
        ended = records.config.end(first, 1)
        assert records.config.end(first, 2) is None, "it is told once"
    assert ended
    assert (ended.id, ended.layer, ended.version) == (first, layer, 1)
    with store.transaction() as records:
        assert not records.config.forget(first), "what has ended stays"
        assert records.config.forget(other)
        assert not records.config.forget(other)
        assert [one.id for one in records.config.unfinished() if one.layer.project == project.name] == [second]
        before = datetime.now(UTC) - timedelta(minutes=9)
        third = records.config.begin(project, Layer(project.name, "staging"), 0, ADA, {}, at=before)
        assert [one.at for one in records.config.of(Layer(project.name, "staging"))] == [before]
        assert records.config.forget(third)
        newest, oldest = records.config.of(layer)
        assert records.config.of(Layer(project.name, "develop")) == []
    with store.transaction() as records:
        assert records.config.forget(second), "a server on this database would settle what is left open"
    assert (newest.id, newest.actor, newest.base, newest.version) == (second, "bob", 0, None)
    assert (oldest.version, oldest.keys) == (1, {"A": Done.SET, "B": Done.HIDDEN})
    assert oldest.layer == layer
    assert datetime.now(UTC) - oldest.at < timedelta(minutes=5)


def test_stages_keep_their_first_start(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    with store.transaction() as records:
        records.deployments.begin_stage(asked.id, Stage.BUILD)
    with store.transaction() as records:
        began = records.deployments.stages(asked.id)[0].started_at
        records.deployments.begin_stage(asked.id, Stage.BUILD)
        records.deployments.end_stage(asked.id, Stage.BUILD, StageState.PASSED, "sha256:1")
        (stage,) = records.deployments.stages(asked.id)
    assert (stage.name, stage.state, stage.note, stage.started_at) == (
        Stage.BUILD,
        StageState.PASSED,
        "sha256:1",
        began,
    )
    assert stage.finished_at is not None


def test_pages_of_deployments(store: Store, project: Project) -> None:
    place = environment(store, project)
    numbers = [queue(store, place).id for _ in range(5)]
    with store.transaction() as records:
        newest = [one.id for one in records.deployments.page([project.name], "develop", None, 2)]
        older = [one.id for one in records.deployments.page([project.name], None, newest[-1], 10)]
    assert newest + older == numbers[::-1]


def test_taking_over_locks_out_who_carried_it(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    with store.transaction() as records:
        assert records.deployments.take_over(asked.id, "runner-2", "runner-1") is None
    claim_until_mine(store, {asked.id})
    with store.transaction() as records:
        claimed = records.deployments.get(asked.id)
        assert records.deployments.take_over(asked.id, "runner-3", "runner-2") is None
        taken = records.deployments.take_over(asked.id, "runner-2", "runner-1")
        assert taken
        assert taken.fence > claimed.fence > asked.fence
        records.deployments.ask_to_cancel(asked.id, "bob")
        assert records.deployments.carried_by(asked.id) == (taken.fence, True)
        records.deployments.hold(taken.fence)
        with pytest.raises(TakenOver):
            records.deployments.hold(claimed.fence)
        records.deployments.finish(asked.id, State.SUCCEEDED)
        assert records.deployments.take_over(asked.id, "runner-4", "runner-2") is None


def test_an_ended_stage_gives_what_it_left_behind(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    left = {"output": {"image": "sha256:1"}, "failure": None, "broke": False}
    with store.transaction() as records:
        first = records.deployments.begin_stage(asked.id, Stage.BUILD)
        assert (first.attempts, first.hung, first.result) == (1, False, None)
        records.deployments.note_hung(asked.id, Stage.BUILD)
    with store.transaction() as records:
        second = records.deployments.begin_stage(asked.id, Stage.BUILD)
        assert (second.attempts, second.hung, second.result) == (2, True, None)
        records.deployments.end_stage(asked.id, Stage.BUILD, StageState.PASSED, "", left)
    with store.transaction() as records:
        third = records.deployments.begin_stage(asked.id, Stage.BUILD)
    assert (third.state, third.result) == (StageState.PASSED, left)
    assert third.finished_at is not None


def test_a_stage_ends_once(store: Store, project: Project) -> None:
    """Whoever was not told that the transaction was committed asks again."""
    asked = queue(store, environment(store, project))
    left = {"output": {}, "failure": None, "broke": False}
    with store.transaction() as records:
        records.deployments.begin_stage(asked.id, Stage.BUILD)
        records.deployments.begin_stage(asked.id, Stage.BUILD)
        ended = records.deployments.end_stage(asked.id, Stage.BUILD, StageState.PASSED, "once", left)
        assert ended
        assert (ended.name, ended.state, ended.note, ended.attempts) == (Stage.BUILD, StageState.PASSED, "once", 2)
        assert ended.finished_at
    with store.transaction() as records:
        assert records.deployments.end_stage(asked.id, Stage.BUILD, StageState.FAILED, "twice", left) is None
        (kept,) = records.deployments.stages(asked.id)
    assert (kept.state, kept.note, kept.finished_at) == (StageState.PASSED, "once", ended.finished_at)


def test_the_register_keeps_order_and_detail(store: Store, project: Project) -> None:
    with store.transaction() as records:
        for number in range(3):
            records.register.add(
                ADA.event(Kind.PROJECT_ADDED, project.name, detail={"number": number, "text": "ü\u2028"})
            )
    with store.transaction() as records:
        page = records.register.page(Wanted(project.name), None, 2)
        rest = records.register.page(Wanted(project.name), page.next, 5)
    assert [line.detail["number"] for line in [*page.items, *rest.items]] == [2, 1, 0]
    assert [line.detail["text"] for line in rest.items] == ["ü\u2028"]
    assert page.next == page.items[-1].id
    assert rest.next is None
    assert {(line.actor, line.proof, line.source) for line in page.items} == {("ada", "token ada", "192.0.2.7")}


def test_the_register_is_filtered(store: Store, project: Project) -> None:
    name, began = project.name, datetime.now(UTC)
    events = [
        AuditEvent(Kind.PROJECT_ADDED, "ada", name),
        AuditEvent(Kind.CONFIG_CHANGED, "ada", name, "develop", detail={"keys": {"A": "100%_sure"}}),
        AuditEvent(Kind.DEPLOYMENT_REQUESTED, "bob", name, "develop", 7, {"reason": 'Ünder "pressure"'}),
        AuditEvent(Kind.DEPLOYMENT_FINISHED, "platform", name, "staging", 7, proof=f"token {name}", source="10.1.2.3"),
        AuditEvent(Kind.TOKEN_CREATED, "ada", detail={"token": name}),
    ]
    marks = [began]
    for event in events:
        with store.transaction() as records:
            records.register.add(event)
        marks.append(datetime.now(UTC))

    def shown(before: int | None = None, **wanted: Any) -> list[int]:
        """Which of the events, by place, newest first."""
        with store.transaction() as records:
            found = records.register.page(Wanted(**wanted), before, 100)
        seen = [{**vars(line), "id": None, "at": None} for line in found.items if name in str(line)]
        return [[{**vars(event), "id": None, "at": None} for event in events].index(one) for one in seen]

    assert shown(since=began) == [4, 3, 2, 1, 0]
    assert shown(project=name) == [3, 2, 1, 0]
    assert shown(project=name, environment="develop") == [2, 1]
    assert shown(environment="staging", since=began) == [3]
    assert shown(actor="ada", since=began) == [4, 1, 0]
    assert shown(actor="ada", project=name, kind="config.changed") == [1]
    assert shown(kind="deployment.finished", since=began) == [3]
    assert shown(kind="nothing.known") == []
    assert shown(projects=[name], since=began) == [3, 2, 1, 0]
    assert shown(projects=[], since=began) == []
    assert shown(project=name, projects=["another"]) == []
    assert shown(since=marks[1], until=marks[4]) == [3, 2, 1]
    assert shown(until=marks[2], project=name) == [1, 0]
    assert shown(since=datetime.now(UTC) + timedelta(days=1)) == []
    assert shown(until=datetime(1999, 1, 1, tzinfo=UTC)) == []
    assert shown(project=name, text="TOKEN " + name.upper()) == [3]
    assert shown(project=name, text="10.1.2") == [3]
    assert shown(project=name, text="100%_") == [1]
    assert shown(project=name, text="100__") == []
    assert shown(project=name, text="ünder") == [2]
    assert shown(project=name, text="nowhere to be found") == []


def test_the_register_is_a_chain(store: Store, project: Project) -> None:
    def look() -> tuple[Head | None, list[Link]]:
        with store.transaction() as records:
            return records.register.head(), records.register.links(0, 10**9, 10**6)

    before = look()[0]
    with store.transaction() as records:
        for number in range(3):
            detail = {"bb": [1, 1.5, None], "a": {"text": 'ü\u2028"\\\x01\n', "number": number}}
            records.register.add(AuditEvent(Kind.CONFIG_CHANGED, "ada", project.name, "develop", 3, detail, "p", "s"))
    head, links = look()
    assert head
    assert (head.seq, head.hash) == (links[-1].seq, links[-1].hash)
    assert head.seq == (before.seq if before else 0) + 3
    check = Check(lambda _: True)
    for link in links:
        check.link(link)
    assert check.end() == []
    with store.transaction() as records:
        lines = records.register.page(Wanted(project.name), None, 3).items
        assert records.register.links(head.seq - 2, head.seq - 1, 9) == links[-2:-1]
        assert records.register.links(head.seq - 3, head.seq, 2) == links[-3:-1]
    assert [line.body for line in lines] == [link.body for link in reversed(links[-3:])]


def test_what_is_rolled_back_is_not_in_the_register(store: Store, project: Project) -> None:
    with store.transaction() as records:
        before = records.register.head()
    with suppress(ZeroDivisionError), store.transaction() as records:
        records.register.add(AuditEvent(Kind.PROJECT_ADDED, "ada", project.name))
        _ = 1 // 0
    with store.transaction() as records:
        assert records.register.head() == before


def test_seals_are_kept_in_the_order_of_rows(store: Store, project: Project) -> None:
    with store.transaction() as records:
        for _ in range(2):
            records.register.add(AuditEvent(Kind.DEPLOYMENT_REQUESTED, "ada", project.name))
    with store.transaction() as records:
        head = records.register.head()
        assert head
        at = datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=UTC)
        seals = [Seal(seq, head.hash, at, 1, b"x" * 64) for seq in (head.seq, head.seq - 1)]
        for seal in seals:
            records.register.seal(seal)
    with store.transaction() as records:
        assert records.register.newest_seal() == seals[0]
        assert records.register.seals(head.seq - 2, head.seq) == seals[::-1]
        assert records.register.seals(head.seq - 2, head.seq - 1) == seals[1:]
        assert not records.register.ended_since(head.seq)
        records.register.add(AuditEvent(Kind.DEPLOYMENT_FINISHED, "platform", project.name))
    with store.transaction() as records:
        assert records.register.ended_since(head.seq)
        assert not records.register.ended_since(head.seq + 1)


def test_logs_come_back_as_they_were_written(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    now = datetime.now(UTC)
    store.append_log(asked.id, [(now, "build", f"line {number} ü \x00") for number in range(5)])
    first = store.read_log(asked.id, 0, 3)
    rest = store.read_log(asked.id, first[-1].seq, 10)
    assert [line.text for line in first + rest] == [f"line {number} ü ␀" for number in range(5)]
    assert [store.before_the_last(asked.id, count) for count in (0, 2, 4, 5, 6)] == [
        *(line.seq for line in (rest[-1], first[-1], first[0])),
        0,
        0,
    ]
    assert store.log_size(asked.id) == sum(len(line.text) for line in first + rest)
    store.append_log(asked.id, [(now, "test", "another stage's")])
    assert store.last_lines(asked.id, "build", 2) == ["line 3 ü ␀", "line 4 ü ␀"]
    assert store.last_lines(asked.id, "start", 2) == []


# --- two at once ---


def beside(work: Callable[[], object]) -> threading.Thread:
    """Do something in another thread, and give it time to run into what is locked."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.3)
    return thread


def test_requests_for_one_environment_stand_in_line(store: Store, project: Project) -> None:
    place = environment(store, project)
    revision = Revision("refs/heads/develop", "a" * 40, "subject")
    superseded: list[list[int]] = []

    def ask() -> Deployment:
        with store.transaction() as records:
            new = records.deployments.add(place, revision, actor="ada", trigger=Trigger.CLI, reason="")
            superseded.append(records.deployments.supersede(new))
            return new

    with store.transaction() as records:
        first = records.deployments.add(place, revision, actor="bob", trigger=Trigger.CLI, reason="")
        records.deployments.supersede(first)
        second = beside(ask)
    second.join()
    assert superseded == [[first.id]]


def test_what_a_runner_claims_meanwhile_is_asked_to_stop_not_ended(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))
    people = Deployments(store, Gate(store), Views(str), FakeSource(), "test")
    with store.transaction() as records:
        while (claimed := records.deployments.claim(Tier.NONPROD, "runner-1")) is not None and claimed.id != asked.id:
            pass
        assert claimed
        cancelling = beside(lambda: people.cancel(ADA, asked.id))
    cancelling.join()
    with store.transaction() as records:
        about = records.deployments.get(asked.id)
    assert (about.state, about.cancel_requested) == (State.RUNNING, True)


def test_no_stage_begins_while_somebody_cancels(store: Store, project: Project) -> None:
    asked = queue(store, environment(store, project))

    def begin() -> None:
        with store.transaction() as records:
            records.deployments.begin_stage(asked.id, Stage.SWITCH)

    with store.transaction() as records:
        records.deployments.ask_to_cancel(asked.id, "bob")
        beginning = beside(begin)
        assert beginning.is_alive()
        assert records.deployments.stages(asked.id) == []
    beginning.join()


def test_a_release_that_lost_its_image_is_found_again_once_it_was_built_again(store: Store, project: Project) -> None:
    with store.transaction() as records:
        first = records.releases.add(project, "a" * 40, "key-1", f"{project.name}@sha256:1", MANIFEST)
        records.releases.add(project, "b" * 40, "key-2", f"{project.name}@sha256:2", MANIFEST)
        records.releases.hold({first.id})
        records.releases.note_removed({first.id})
    with store.transaction() as records:
        assert records.releases.find(project, "key-1") is None
        assert records.releases.get(first.id) == first
        mine = {image for image in records.releases.images() if image.startswith(project.name)}
        assert mine == {f"{project.name}@sha256:2"}
        again = records.releases.add(project, "a" * 40, "key-1", f"{project.name}@sha256:3", MANIFEST)
        assert (again.id, again.number, again.image) == (first.id, first.number, f"{project.name}@sha256:3")
        assert records.releases.find(project, "key-1") == again


def test_uses_tell_what_each_environment_has_of_a_release(store: Store, project: Project) -> None:
    place = environment(store, project)
    releases, asked = [], []
    for number in range(5):
        with store.transaction() as records:
            releases.append(records.releases.add(project, "a" * 40, f"key-{number}", f"x@sha256:{number}", MANIFEST).id)
        one = queue(store, place)
        with store.transaction() as records:
            records.deployments.note_release(one.id, releases[-1])
            state = State.FAILED if number in {1, 3} else State.SUCCEEDED
            if number != 4:
                records.deployments.finish(one.id, state)
            if number == 2:
                records.deployments.note_replaces(one.id)
            if number in {0, 2}:
                records.environments.set_live(place, one.id)
        asked.append(one.id)
    with store.transaction() as records:
        found = {use.release: use for use in records.releases.uses() if use.environment == place.id}
    assert [found[one].needed for one in releases] == [True, False, True, False, True]
    assert [found[one].succeeded for one in releases] == [asked[0], None, asked[2], None, None]


@pytest.mark.parametrize("store", [pytest.param("postgres", marks=pytest.mark.stack)], indirect=True)
def test_whoever_finds_a_release_keeps_its_image_until_that_is_written_down(store: Store, project: Project) -> None:
    place = environment(store, project)
    deployment = queue(store, place)
    with store.transaction() as records:
        release = records.releases.add(project, "a" * 40, "key-1", "x@sha256:1", MANIFEST)
    found, uses = threading.Event(), []

    def clean() -> None:
        found.wait(10)
        with store.transaction() as records:
            records.releases.hold({release.id})
            uses.extend(use.release for use in records.releases.uses() if use.needed)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    with store.transaction() as records:
        assert records.releases.find(project, "key-1") == release
        found.set()
        cleaner.join(0.3)
        assert cleaner.is_alive()
        records.deployments.note_release(deployment.id, release.id)
    cleaner.join(10)
    assert release.id in uses


def test_logs_go_by_age_and_count_but_not_that_of_what_is_live(store: Store, project: Project) -> None:
    place = environment(store, project)
    asked = [queue(store, place).id for _ in range(5)]
    now = datetime.now(UTC)
    for one in asked:
        store.append_log(one, [(now, "build", "a line")])
    with store.transaction() as records:
        for one in asked[:4]:
            records.deployments.finish(one, State.SUCCEEDED)
        records.environments.set_live(place, asked[0])
    assert store.prune_logs(now - timedelta(days=1), keep=2) >= 1
    said = [[line.text for line in store.read_log(one, 0, 9)] for one in asked]
    assert said == [["a line"], [GONE_TEXT], ["a line"], ["a line"], ["a line"]]
    for _ in range(2):
        store.prune_logs(datetime.now(UTC) + timedelta(days=1), keep=2)
    said = [[line.text for line in store.read_log(one, 0, 9)] for one in asked]
    assert said == [["a line"], [GONE_TEXT], [GONE_TEXT], [GONE_TEXT], ["a line"]]


def test_those_who_share_a_name_are_alone_together(store: Store) -> None:
    name = f"n{uuid4().hex}"
    with store.alone(name, shared=True) as first, store.alone(name, shared=True) as second:
        assert first
        assert second
        with store.alone(name) as third:
            assert not third
    with store.alone(name) as third, store.alone(name, shared=True) as fourth:
        assert third
        assert not fourth


def test_who_waits_to_be_alone_is_not_passed_by(store: Store) -> None:
    name = f"n{uuid4().hex}"
    had = []

    def wait() -> None:
        with store.alone(name, wait=10) as alone:
            had.append(alone)

    waiting = threading.Thread(target=wait)
    with store.alone(name, shared=True) as first:
        assert first
        waiting.start()
        until = time.monotonic() + 5
        passed = True
        while passed and time.monotonic() < until:
            with store.alone(name, shared=True) as passed:
                pass
        assert not passed, "who came later was let in before who waits"
    waiting.join()
    assert had == [True]
    with store.alone(name, shared=True) as after:
        assert after


def test_waiting_to_be_alone_has_an_end(store: Store) -> None:
    name = f"n{uuid4().hex}"
    with store.alone(name, shared=True), store.alone(name, wait=0.1) as alone:
        assert not alone
        with store.alone(name, shared=True) as after:
            assert after
    with store.alone(name) as free:
        assert free


def test_one_at_a_time_is_alone_with_a_name(store: Store) -> None:
    name = uuid4().hex
    with store.alone(name) as first, store.alone(name) as second, store.alone(f"{name}-other") as another:
        assert (first, second, another) == (True, False, True)
    with store.alone(name) as again:
        assert again
