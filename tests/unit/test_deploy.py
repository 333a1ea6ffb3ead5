"""The story of a deployment against fakes: what users have at each end, whatever goes wrong, and after any crash."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import get_args

import pytest

from branchline.domain.audit import Kind
from branchline.domain.deployment import Deployment, State, Trigger
from branchline.domain.environment import Destination, Environment, Inherits, Tier
from branchline.domain.errors import PlatformBroke, TakenOver
from branchline.domain.manifest import AdjustableStage
from branchline.domain.pipeline import MOST_ATTEMPTS, TIME_LIMITS, Stage
from branchline.domain.release import build_key
from branchline.manifest_file import parse
from branchline.operations.changes import WhatChanged
from branchline.operations.deploy import Deploy
from branchline.operations.health import Health
from branchline.operations.launch import Launch
from branchline.operations.pipeline import Pipeline
from branchline.operations.traffic import TrafficShift
from branchline.operations.variables import Variables
from branchline.ports import Revision
from branchline.store.database import SqlStore
from tests.fakes.config import FakeConfigStore
from tests.fakes.containers import Call, FakeContainers
from tests.fakes.databases import FakeDatabases
from tests.fakes.images import FakeImages
from tests.fakes.probes import FakeProbes
from tests.fakes.proxy import FakeProxy
from tests.fakes.source import FakeSource, Link
from tests.fakes.store import MemoryStore

REPOSITORY = "/srv/shop.git"
HOST = "develop-shop.test"
MANIFEST = """
project: shop
test: {command: check, databases: [default]}
release: migrate
services:
  web:
    command: serve
    port: 8000
    routes: [/]
    healthcheck: {path: /up, timeout: 0.3s, interval: 50ms}
    deploy: {replicas: 2}
    stop_grace_period: 0.2s
  worker:
    command: work
    healthcheck: {command: beat, timeout: 0.3s, interval: 50ms}
databases: {default: {variable: DATABASE_URL}}
environments: {develop: {on: {branch: develop}}}
watch: {window: 0.3s, failures: 2, requests: 10, errors: 20%}
"""
ROAD = [
    Stage.CHECKOUT,
    Stage.BUILD,
    Stage.TEST,
    Stage.PUBLISH,
    Stage.PREPARE,
    Stage.RELEASE,
    Stage.START,
    Stage.VERIFY,
    Stage.SWITCH,
    Stage.WATCH,
]


class Killed(BaseException):
    """The process was killed here."""


class World:
    """Everything outside, faked; `push` and `deploy` play a developer and a runner."""

    def __init__(self, folder: Path, store: MemoryStore | SqlStore | None = None) -> None:
        self.folder = folder
        self.store = store or MemoryStore()
        self.source = FakeSource()
        self.images = FakeImages()
        self.containers = FakeContainers()
        self.probes = FakeProbes(self.containers)
        self.proxy = FakeProxy()
        self.configs = FakeConfigStore()
        self.databases = FakeDatabases(Tier.NONPROD)
        self.faults: list[str] = []
        self.patience = 120.0
        self.repository = self.source.host(REPOSITORY)
        with self.store.transaction() as records:
            project = records.projects.add("shop", REPOSITORY)
            self.environment = records.environments.ensure(project, Destination("develop", Tier.NONPROD))
            records.environments.claim_hostnames(self.environment, [HOST])

    def runner(self, name: str = "runner-1") -> Deploy:
        reader = self.configs.reader(Tier.NONPROD)
        variables, changes = Variables(reader, self.databases), WhatChanged(self.source, reader)
        health = Health(self.containers, self.probes)
        return Deploy(
            self.store,
            Pipeline(
                self.store,
                self.source,
                self.images,
                self.containers,
                self.databases,
                work=self.folder,
                tier=Tier.NONPROD,
                builds_at_once=2,
                instance="blue",
                build_secrets=variables.for_build,
            ),
            Launch(self.store, self.images, self.containers, self.databases, variables, health, changes, domain="test"),
            TrafficShift(self.store, self.containers, self.proxy, health, domain="test"),
            log_limit=100_000,
            patience=self.patience,
            report_fault=lambda _incident, trace: self.faults.append(trace),
        )

    def push(self, manifest: str = MANIFEST) -> Deployment:
        self.repository.commit("develop", {"branchline.yaml": manifest, "Dockerfile": "FROM scratch\n"})
        return self.ask(self.source.resolve("shop", REPOSITORY, "develop"))

    def ask(self, revision: Revision) -> Deployment:
        """Somebody asks for a commit that is there already, and a runner takes the work."""
        with self.store.transaction() as records:
            records.deployments.add(self.environment, revision, actor="ada", trigger=Trigger.CLI, reason="")
            claimed = records.deployments.claim(Tier.NONPROD, "runner-1")
        assert claimed
        return claimed

    def deploy(self, manifest: str = MANIFEST) -> Deployment:
        asked = self.push(manifest)
        self.runner().run(asked)
        return self.deployment(asked.id)

    def go_on(self, number: int, runner: str = "runner-2") -> Deployment:
        """Another runner takes the deployment over and carries it to its end."""
        with self.store.transaction() as records:
            taken = records.deployments.take_over(number, runner, records.deployments.get(number).runner or "")
        assert taken
        self.runner(runner).run(taken)
        return self.deployment(number)

    def die(self, moment: str, stage: Stage) -> None:
        """The next process that comes there is killed: `before` a stage begins, when it has done its work but not said
        so yet (`unrecorded`), or `after` it has."""
        said: list[str] = []
        dead: list[bool] = []  # a fake's tables are rolled back with the transaction that the kill ended; this is not

        def witness(seen: str, of: Stage | None) -> None:
            if dead:
                return
            if (seen, of) == ("end", stage):
                said.append(seen)
            now = {
                "before": (seen, of) == ("begin", stage),
                "unrecorded": (seen, of) == ("end", stage),
                "after": bool(said) and seen in {"begin", "finish"},
            }
            if now[moment]:
                dead.append(True)
                raise Killed(stage)

        self.store.tables.witness = witness

    def deployment(self, number: int) -> Deployment:
        with self.store.transaction() as records:
            return records.deployments.get(number)

    def live(self) -> int | None:
        with self.store.transaction() as records:
            return records.environments.get("shop", "develop").live_deployment

    def serving(self) -> set[int]:
        """Which deployments users reach."""
        owners = {f"{one.address}:{one.port}": one.deployment for one in self.containers.instances(self.environment)}
        return {owners[target] for target in self.proxy.targets(HOST)}

    def log(self, number: int) -> str:
        return "\n".join(line.text for line in self.store.read_log(number, 0, 100_000))

    def kinds(self, number: int) -> list[Kind]:
        return [event.kind for _, event in self.store.tables.events if event.deployment == number]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def fails(words: str, status: int = 1):
    def program(call: Call) -> int:
        call.say(words)
        return status

    return program


def test_a_first_release_becomes_live(world: World) -> None:
    done = world.deploy()
    assert (done.state, done.failure) == (State.SUCCEEDED, None)
    with world.store.transaction() as records:
        assert [record.name for record in records.deployments.stages(done.id)] == [*ROAD, Stage.DRAIN]
    assert world.serving() == {done.id} == {world.live()}
    assert world.faults == []
    assert len(world.containers.instances(world.environment)) == 3
    assert world.kinds(done.id).count(Kind.STAGE_ENDED) == 11
    assert world.kinds(done.id)[-1] is Kind.DEPLOYMENT_FINISHED
    assert list(world.folder.iterdir()) == []


def test_the_next_release_replaces_it(world: World) -> None:
    first, second = world.deploy(), world.deploy()
    assert second.replaces == first.id
    assert world.serving() == {second.id}
    assert world.containers.running(world.environment) == [second.id]


def test_containers_are_told_what_they_need(world: World) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "very-secret-value"})
    done = world.deploy(MANIFEST.replace("port: 8000", "port: 8000\n    environment: {PLAIN: text, API_KEY: default}"))
    (web, *_rest) = [one for one in world.containers.containers.values() if one.instance.service == "web"]
    told = {key: value.reveal() for key, value in web.spec.variables.items()}
    assert told["API_KEY"] == "very-secret-value"
    assert told["DATABASE_URL"].startswith("postgresql://")
    assert (told["PLAIN"], told["PORT"], told["BRANCHLINE_RELEASE"]) == ("text", "8000", "1")
    assert told["BRANCHLINE_DEPLOYMENT"] == str(done.id)
    assert done.config == {"shop/_common": 0, "shop/env/develop": 1}


NEEDS = MANIFEST + "config: {required: [API_KEY, DSN, TOKEN], optional: {LEVEL: info, COLOUR: blue, SIZE: small}}\n"


def test_a_config_that_lacks_required_keys_stops_it_before_anything_is_touched(world: World) -> None:
    world.configs.put("shop", "develop", {"DSN": ""})
    done = world.deploy(NEEDS)
    assert (done.state, done.failed_stage) == (State.FAILED, Stage.PREPARE)
    assert done.failure
    assert done.failure.code == "config_missing"
    assert done.failure.sentence == "The config of shop develop lacks API_KEY, TOKEN."
    assert "`branchline config set shop develop API_KEY`" in done.failure.hint
    assert world.containers.networks == set()
    assert world.databases.tables == {}
    world.configs.put("shop", "_common", {"API_KEY": "k", "TOKEN": "t"})
    assert world.deploy(NEEDS).state is State.SUCCEEDED


def test_optional_keys_have_defaults_which_services_and_the_config_change(world: World) -> None:
    keys = {"API_KEY": "k", "DSN": "d", "TOKEN": "t", "SIZE": "large"}
    world.configs.put("shop", "develop", keys)
    world.deploy(NEEDS.replace("port: 8000", "port: 8000\n    environment: {COLOUR: red, SIZE: tiny}"))
    for service, colour in (("web", "red"), ("worker", "blue")):
        (one, *_rest) = [one for one in world.containers.containers.values() if one.instance.service == service]
        told = {key: value.reveal() for key, value in one.spec.variables.items()}
        assert (told["LEVEL"], told["COLOUR"], told["SIZE"]) == ("info", colour, "large")


def test_where_secrets_are_files_no_variable_holds_one(world: World) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "very-secret-value", "DSN": "d", "TOKEN": "t", "COLOUR": "green"})
    seen = []
    world.containers.programs["migrate"] = lambda call: seen.append(call) or 0
    manifest = (
        NEEDS.replace("port: 8000", "port: 8000\n    environment: {PLAIN: text, COLOUR: red}") + "secrets: files\n"
    )
    assert world.deploy(manifest).state is State.SUCCEEDED
    (web, *_rest) = [one for one in world.containers.containers.values() if one.instance.service == "web"]
    told = {key: value.reveal() for key, value in web.spec.variables.items()}
    files = {key: value.reveal() for key, value in web.spec.files.items()}
    assert (told["PLAIN"], told["PORT"], told["BRANCHLINE_SECRETS"]) == ("text", "8000", "/run/secrets")
    assert files.pop("DATABASE_URL").startswith("postgresql://")
    assert files == {
        "API_KEY": "very-secret-value",
        "DSN": "d",
        "TOKEN": "t",
        "COLOUR": "green",
        "LEVEL": "info",
        "SIZE": "small",
    }
    assert not {*files, "DATABASE_URL"} & set(told)
    (migrate,) = seen
    assert migrate.files["API_KEY"] == "very-secret-value"
    assert "API_KEY" not in migrate.variables


def test_where_secrets_are_files_a_service_still_has_the_last_word_over_defaults(world: World) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "k", "DSN": "d", "TOKEN": "t"})
    world.deploy(
        NEEDS.replace("port: 8000", "port: 8000\n    environment: {LEVEL: debug, DSN: x}") + "secrets: files\n"
    )
    (web, *_rest) = [one for one in world.containers.containers.values() if one.instance.service == "web"]
    assert web.spec.variables["LEVEL"].reveal() == "debug"
    assert "LEVEL" not in web.spec.files
    assert web.spec.files["DSN"].reveal() == "d"
    assert "DSN" not in web.spec.variables


def large(world: World, count: int) -> None:
    """So many settings of 100 KB, of which one layer could not hold all."""
    for layer in ("_common", "develop"):
        world.configs.put("shop", layer, {f"{layer.upper()}_{number}": "ä" * 50_000 for number in range(count // 2)})


def test_more_than_a_process_can_be_given_is_refused_before_anything_is_touched(world: World) -> None:
    large(world, 14)
    assert world.deploy().state is State.SUCCEEDED
    networks, tables = set(world.containers.networks), dict(world.databases.tables)
    world.containers.networks.clear()
    world.databases.tables.clear()
    large(world, 16)
    done = world.deploy()
    assert (done.state, done.failed_stage) == (State.FAILED, Stage.PREPARE)
    assert done.failure
    assert done.failure.code == "config_too_large"
    assert done.failure.sentence == (
        "The environment variables of web would have 1562 KiB, more than a process can be given."
    )
    assert "`secrets: files`" in done.failure.hint
    assert (world.containers.networks, world.databases.tables) == (set(), {})
    world.containers.networks |= networks
    world.databases.tables.update(tables)
    assert world.deploy(MANIFEST + "secrets: files\n").state is State.SUCCEEDED


@pytest.mark.parametrize("secrets", ["environment", "files"])
def test_a_value_of_the_manifest_that_is_too_long_is_named(world: World, secrets: str) -> None:
    text = f"port: 8000\n    environment: {{PLAIN: {'x' * 131_065}}}"
    done = world.deploy(MANIFEST.replace("port: 8000", text.replace("xx", "x", 1)) + f"secrets: {secrets}\n")
    assert done.state is State.SUCCEEDED
    done = world.deploy(MANIFEST.replace("port: 8000", text) + f"secrets: {secrets}\n")
    assert done.failure
    assert (done.failure.code, "PLAIN" in done.failure.sentence) == ("config_too_large", True)
    assert "x" * 10 not in done.failure.sentence


def test_a_deployment_inherits_what_its_own_commit_says(world: World) -> None:
    world.configs.put("shop", "_common", {"API_KEY": "k"})
    alone = "environments: {develop: {on: {branch: develop}, inherits: nothing}}"
    said = world.push(MANIFEST.replace("environments: {develop: {on: {branch: develop}}}", alone))
    with world.store.transaction() as records:  # and then somebody asked for another commit that says otherwise
        project = records.projects.get("shop")
        records.environments.ensure(project, Destination("develop", Tier.NONPROD, Inherits.COMMON))
    world.runner().run(said)
    with world.store.transaction() as records:
        done = records.deployments.get(said.id)
    assert done.config == {"shop/env/develop": 0}


BUILDS = MANIFEST + "build: {secrets: [NPM_TOKEN]}\n"


def test_a_build_gets_the_secrets_that_the_manifest_names(world: World) -> None:
    world.configs.put("shop", "_common", {"NPM_TOKEN": "very-secret-value", "OTHER": "x"})
    done = world.deploy(BUILDS)
    assert done.state is State.SUCCEEDED
    assert world.images.secrets[0] == {"NPM_TOKEN": "very-secret-value"}
    assert "very-secret-value" not in world.log(done.id)


def test_what_was_built_with_secrets_was_built_for_one_environment() -> None:
    with_secrets, without = parse(BUILDS), parse(MANIFEST)
    keys = {build_key("a", with_secrets, name) for name in ("develop", "staging", "production")}
    assert len(keys) == 3
    assert build_key("a", without, "develop") == build_key("a", without, "production")


def test_containers_get_the_config_of_the_versions_that_were_built_with(world: World) -> None:
    world.configs.put("shop", "develop", {"NPM_TOKEN": "one"})
    world.containers.programs["check"] = lambda _call: world.configs.put("shop", "develop", {"NPM_TOKEN": "two"}) and 0
    done = world.deploy(BUILDS)
    assert done.config == {"shop/_common": 0, "shop/env/develop": 1}
    (web, *_rest) = [one for one in world.containers.containers.values() if one.instance.service == "web"]
    assert web.spec.variables["NPM_TOKEN"].reveal() == "one"


def test_a_build_whose_secret_is_not_set_says_so(world: World) -> None:
    done = world.deploy(BUILDS)
    assert (done.state, done.failed_stage) == (State.FAILED, Stage.BUILD)
    assert done.failure
    assert (done.failure.code, done.failure.sentence) == (
        "config_missing",
        "The config of shop develop lacks NPM_TOKEN.",
    )


def test_an_attempt_that_goes_on_asks_for_keys_in_what_was_pinned(world: World) -> None:
    world.configs.put("shop", "develop", dict.fromkeys(("API_KEY", "DSN", "TOKEN"), "x"))
    world.die("unrecorded", Stage.PREPARE)
    asked = world.push(NEEDS)
    with pytest.raises(Killed):
        world.runner().run(asked)
    world.configs.put("shop", "develop", {"TOKEN": None})
    assert world.go_on(asked.id).state is State.SUCCEEDED


def test_secrets_that_programs_print_are_hidden(world: World) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "very-secret-value"})
    world.containers.programs["migrate"] = lambda call: call.say(str(call.variables)) or 0
    done = world.deploy()
    assert done.state is State.SUCCEEDED
    assert "API_KEY" in world.log(done.id)
    assert "very-secret-value" not in world.log(done.id)
    assert "postgresql://" not in world.log(done.id) or "[hidden]" in world.log(done.id)


@pytest.mark.parametrize(
    ("stage", "code", "words", "break_it"),
    [
        (Stage.TEST, "tests_failed", "1 failed", lambda w: w.containers.programs.update(check=fails("1 failed"))),
        (
            Stage.RELEASE,
            "release_command_failed",
            "no such column",
            lambda w: w.containers.programs.update(migrate=fails("no such column")),
        ),
        (Stage.START, "command_not_found", "serve", lambda w: w.containers.missing_commands.add("serve")),
        (Stage.VERIFY, "unhealthy", "HTTP 500", lambda w: w.probes.answer("web", (False, "HTTP 500"))),
        (Stage.VERIFY, "unhealthy", "no pulse", lambda w: w.containers.programs.update(beat=fails("no pulse"))),
        (Stage.CHECKOUT, "manifest_invalid", "unknown key", None),
    ],
)
def test_a_bad_release_changes_nothing_for_users(world: World, stage: Stage, code: str, words: str, break_it) -> None:
    before = world.deploy()
    if break_it:
        break_it(world)
    done = world.deploy(MANIFEST + ("typo: 1\n" if break_it is None else ""))
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.FAILED, stage, code)
    assert words in done.failure.sentence
    assert done.failure.hint
    assert world.serving() == {before.id} == {world.live()}
    assert world.containers.running(world.environment) == [before.id]
    assert world.faults == []


def test_a_container_that_crashes_says_its_last_words(world: World) -> None:
    world.deploy()
    answers = world.probes.probe

    def crash_first(instance, check):
        world.containers.crash(instance, 3, said="Traceback\nImportError: shop")
        return answers(instance, check)

    world.probes.probe = crash_first
    done = world.deploy()
    assert done.failure
    assert done.failure.code == "crashed"
    assert "status 3" in done.failure.sentence
    assert "ImportError: shop" in done.failure.sentence
    assert "Traceback" in world.log(done.id)


def test_a_container_that_eats_its_memory(world: World) -> None:
    def eat(instance, check):
        world.containers.crash(instance, 137, out_of_memory=True)
        return False, "connection refused"

    world.probes.probe = eat
    done = world.deploy(MANIFEST.replace("deploy: {replicas: 2}", "deploy: {resources: {limits: {memory: 64M}}}"))
    assert done.failure
    assert (done.failure.code, "64 MB" in done.failure.sentence) == ("out_of_memory", True)


def test_failing_probes_after_the_switch_undo_the_release(world: World) -> None:
    before = world.deploy()
    world.probes.answer("web", (True, "HTTP 200"), (True, "HTTP 200"), (False, "HTTP 503"))
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.UNDONE, Stage.WATCH, "sick_after_switch")
    assert "HTTP 503" in done.failure.sentence
    assert world.serving() == {before.id} == {world.live()}
    assert world.containers.running(world.environment) == [before.id]
    assert Kind.DEPLOYMENT_UNDONE in world.kinds(done.id)


def test_too_many_errors_after_the_switch_undo_the_release(world: World) -> None:
    before = world.deploy()
    switch = world.proxy.switch

    def then_answer_badly(environment: Environment, hostnames, routes, fence) -> None:
        switch(environment, hostnames, routes, fence)
        world.proxy.answer(HOST, 200, times=9)
        world.proxy.answer(HOST, 502, times=3)

    world.proxy.switch = then_answer_badly
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failure.code) == (State.UNDONE, "sick_after_switch")
    assert "3 of 12" in done.failure.sentence
    assert world.serving() == {before.id}


def test_few_errors_are_no_sickness(world: World) -> None:
    world.deploy()
    mark = world.proxy.mark

    def and_some_errors() -> int:
        at = mark()
        world.proxy.answer(HOST, 500, times=9)
        return at

    world.proxy.mark = and_some_errors
    assert world.deploy().state is State.SUCCEEDED


def test_a_first_release_that_turns_sick_leaves_no_ruins(world: World) -> None:
    world.probes.answer("web", (True, "HTTP 200"), (True, "HTTP 200"), (False, "HTTP 503"))
    done = world.deploy()
    assert done.state is State.UNDONE
    assert (world.live(), world.proxy.targets(HOST)) == (None, ())
    assert world.containers.instances(world.environment) == []


def test_a_known_commit_is_built_and_tested_once(world: World) -> None:
    world.deploy()
    asked = world.push()
    with world.store.transaction() as records:
        first = records.deployments.get(1)
        records.deployments.finish(asked.id, State.CANCELLED)
        revision = world.source.resolve("shop", REPOSITORY, "develop")
        again = records.deployments.add(
            world.environment,
            type(revision)(revision.ref, first.commit, ""),
            actor="ada",
            trigger=Trigger.CLI,
            reason="",
        )
        records.deployments.claim(Tier.NONPROD, "runner-1")
    done = world.go_on(again.id)
    with world.store.transaction() as records:
        states = {record.name: record.state for record in records.deployments.stages(again.id)}
    assert (done.state, done.release) == (State.SUCCEEDED, first.release)
    assert [states[stage] for stage in (Stage.BUILD, Stage.TEST, Stage.PUBLISH)] == ["skipped"] * 3


# --- interruptions ---


@pytest.mark.parametrize("stage", [*ROAD, Stage.DRAIN])
@pytest.mark.parametrize("moment", ["before", "unrecorded", "after"])
def test_a_killed_runner_is_followed_by_another(world: World, stage: Stage, moment: str) -> None:
    before = world.deploy()
    migrated: list[str] = []
    world.containers.programs["migrate"] = lambda call: migrated.append("once") or 0
    asked = world.push()
    world.die(moment, stage)
    with pytest.raises(Killed):
        world.runner().run(asked)
    assert world.serving() in ({before.id}, {asked.id})
    done = world.go_on(asked.id)
    assert (done.state, done.replaces) == (State.SUCCEEDED, before.id)
    assert world.serving() == {asked.id} == {world.live()}
    assert world.containers.running(world.environment) == [asked.id]
    assert world.faults == []
    assert migrated == ["once"]
    assert world.kinds(asked.id).count(Kind.STAGE_ENDED) == 11
    assert world.kinds(asked.id).count(Kind.DEPLOYMENT_FINISHED) == 1


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("source", "checkout"),
        ("images", "build"),
        ("containers", "ensure_network"),
        ("databases", "ensure_scratch"),
        ("images", "publish"),
        ("images", "pull"),
        ("containers", "forget_run"),
        ("probes", "probe"),
        ("proxy", "mark"),
        ("proxy", "in_flight"),
    ],
)
def test_who_comes_back_late_changes_nothing(
    world: World, part: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner stands still in the middle of a stage, while another goes on and a newer deployment comes."""
    world.deploy()
    asked = world.push(MANIFEST.replace("environments:", "build: {args: {A: b}}\nenvironments:"))
    real = getattr(getattr(world, part), method)
    newest: list[Deployment] = []

    def stand_still(*words, **named):
        monkeypatch.undo()
        world.go_on(asked.id)
        newest.append(world.deploy())
        return real(*words, **named)

    monkeypatch.setattr(getattr(world, part), method, stand_still)
    with pytest.raises(TakenOver):
        world.runner().run(asked)
    assert [world.deployment(one).state for one in (asked.id, newest[0].id)] == [State.SUCCEEDED] * 2
    assert world.serving() == {newest[0].id} == {world.live()}
    assert world.containers.running(world.environment) == [newest[0].id]
    assert len(world.containers.networks) == 1, "the places of tests are gone, those of the latecomer too"
    assert world.kinds(asked.id).count(Kind.STAGE_ENDED) == 11
    assert world.kinds(asked.id).count(Kind.DEPLOYMENT_FINISHED) == 1
    assert world.faults == []


def test_a_stage_that_kills_its_runners_breaks(world: World) -> None:
    before = world.deploy()

    def kill(*_words):
        raise Killed("start")

    world.containers.start = kill
    asked = world.push()
    for number in range(MOST_ATTEMPTS):
        with pytest.raises(Killed):
            world.go_on(asked.id, f"runner {number}")
    done = world.go_on(asked.id, "the last one")
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.BROKEN, Stage.START, "stage_kills_runners")
    assert world.serving() == {before.id}


def test_a_stage_that_hung_is_not_tried_again(world: World) -> None:
    before, asked = world.deploy(), world.push()

    def hang(*_words):
        world.store.append_log(asked.id, [(asked.requested_at, "start", "Waiting for Docker")])
        with world.store.transaction() as records:
            records.deployments.note_hung(asked.id, Stage.START)
        raise Killed("by the watchdog")

    world.containers.start = hang
    with pytest.raises(Killed):
        world.runner().run(asked)
    done = world.go_on(asked.id)
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.BROKEN, Stage.START, "stage_hung")
    assert "It last said: Waiting for Docker —" in done.failure.hint
    assert world.serving() == {before.id}


@pytest.mark.parametrize("moment", ["before", "unrecorded", "after"])
def test_a_runner_killed_while_undoing_is_followed_by_another(world: World, moment: str) -> None:
    before = world.deploy()
    world.probes.answer("web", (True, "HTTP 200"), (True, "HTTP 200"), (False, "HTTP 503"))
    asked = world.push()
    world.die(moment, Stage.UNDO)
    with pytest.raises(Killed):
        world.runner().run(asked)
    assert world.go_on(asked.id).state is State.UNDONE
    assert world.serving() == {before.id} == {world.live()}
    assert world.containers.running(world.environment) == [before.id]


def test_cancelling_while_the_tests_run(world: World) -> None:
    before = world.deploy()

    def check_for_ever(call: Call) -> int | None:
        with world.store.transaction() as records:
            records.deployments.ask_to_cancel(2, "bob")
        call.sleep(30)
        return 0

    world.containers.programs["check"] = check_for_ever
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.CANCELLED, Stage.TEST, "cancelled")
    assert world.serving() == {before.id}


def test_a_stage_that_hangs_ends(world: World) -> None:
    def migrate(call: Call) -> int:
        for number in range(5):
            call.say(f"step {number}")
        call.sleep(30)
        return 0

    world.containers.programs["migrate"] = migrate
    done = world.deploy(MANIFEST + "timeouts: {release: 300ms}\n")
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.FAILED, Stage.RELEASE, "stage_timed_out")
    assert "It last said: step 2 | step 3 | step 4 —" in done.failure.hint
    assert "timeouts.release" in done.failure.hint


def test_a_slow_git_host_is_told_from_a_slow_project(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIME_LIMITS, Stage.CHECKOUT, 0.3)

    def slowly(_project, _repository, _commit, _folder, log, stop):
        log.write("Fetching git@slow.test:shop.git")
        stop.wait(30)

    world.source.checkout = slowly
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.FAILED, Stage.CHECKOUT, "stage_timed_out")
    assert done.failure.hint.startswith("It last said: Fetching git@slow.test:shop.git — The git host is slow")


def test_a_short_outage_is_waited_for(world: World) -> None:
    outage = iter([True, True, False, False, False, False, False, False, False])
    pull = world.images.pull

    def sometimes(*words):
        if next(outage):
            raise PlatformBroke("The registry does not answer.", code="registry_unreachable")
        return pull(*words)

    world.images.pull = sometimes
    done = world.deploy()
    assert done.state is State.SUCCEEDED
    assert "Trying again" in world.log(done.id)


def test_what_no_retry_mends_ends_as_broken(world: World) -> None:
    before = world.deploy()

    def gone(*_words):
        raise PlatformBroke("Version 3 is gone.", code="config_gone", hint="Set it again.")

    world.images.pull = gone
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.BROKEN, Stage.PREPARE, "config_gone")
    assert world.serving() == {before.id}


def test_a_fault_of_our_own_is_told_without_its_insides(world: World) -> None:
    before = world.deploy()

    def stumble(*_words):
        raise KeyError("insides")

    world.images.pull = stumble
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failure.code) == (State.BROKEN, "internal")
    assert "insides" not in done.failure.sentence + done.failure.hint + world.log(done.id)
    assert "insides" in world.faults[0]
    assert world.serving() == {before.id}


def test_draining_waits_for_requests_in_flight(world: World) -> None:
    before = world.deploy()
    old = world.proxy.targets(HOST)
    world.proxy.busy[old[0]] = 1
    looks: list[int] = []
    in_flight = world.proxy.in_flight

    def finish_later(targets) -> int:
        looks.append(len(world.containers.instances(world.environment, before.id)))
        if len(looks) == 2:
            world.proxy.busy.clear()
        return in_flight(targets)

    world.proxy.in_flight = finish_later
    assert world.deploy().state is State.SUCCEEDED
    assert looks == [3, 3]


def test_an_image_that_somebody_pruned_is_built_again(world: World) -> None:
    asked = world.push()
    world.die("before", Stage.PUBLISH)
    with pytest.raises(Killed):
        world.runner().run(asked)
    world.images.local.clear()
    world.images.names.clear()
    assert world.go_on(asked.id).state is State.SUCCEEDED


def test_a_context_that_leads_out_of_the_repository_is_refused(world: World) -> None:
    manifest = MANIFEST + "build: {context: link}\n"
    world.repository.commit("develop", {"branchline.yaml": manifest, "link": Link("/etc")})
    asked = world.ask(world.source.resolve("shop", REPOSITORY, "develop"))
    world.runner().run(asked)
    done = world.deployment(asked.id)
    assert done.failure
    assert (done.failed_stage, done.failure.code) == (Stage.BUILD, "context_outside")


# --- secrets in what containers say ---


def test_last_words_hold_no_secrets(world: World) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "very-secret-value"})

    def crash(instance, check):
        world.containers.crash(instance, 3, said="cannot use very-secret-value\x00")
        return False, "connection refused"

    world.probes.probe = crash
    done = world.deploy()
    with world.store.transaction() as records:
        notes = [record.note for record in records.deployments.stages(done.id)]
    assert done.failure
    assert "cannot use [hidden]" in done.failure.sentence
    told = f"{done.failure} {notes} {world.log(done.id)} {world.store.tables.events}"
    assert "very-secret-value" not in told
    assert "\x00" not in done.failure.sentence


def test_a_probe_that_prints_a_secret(world: World) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "very-secret-value"})
    world.containers.programs["beat"] = fails("cannot use very-secret-value")
    done = world.deploy()
    assert done.failure
    assert "cannot use [hidden]" in done.failure.sentence


@pytest.mark.parametrize("stage", [Stage.VERIFY, Stage.WATCH])
def test_a_runner_that_goes_on_hides_the_same_secrets(world: World, stage: Stage) -> None:
    world.configs.put("shop", "develop", {"API_KEY": "very-secret-value"})
    asked = world.push()
    world.die("before", stage)
    with pytest.raises(Killed):
        world.runner().run(asked)
    for one in world.containers.instances(world.environment):
        world.containers.crash(one, 3, said="cannot use very-secret-value")
    world.go_on(asked.id)
    assert "cannot use [hidden]" in world.log(asked.id)
    assert "very-secret-value" not in world.log(asked.id)


# --- outages ---


def test_no_story_breaks_over_its_bookkeeping(world: World) -> None:
    pull = world.images.pull

    def while_the_database_goes_away(*words):
        world.store.away = True
        threading.Timer(0.3, lambda: setattr(world.store, "away", False)).start()
        return pull(*words)

    world.images.pull = while_the_database_goes_away
    assert world.deploy().state is State.SUCCEEDED
    assert world.faults == []


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_who_reaches_no_database_leaves_the_story_to_whoever_does(world: World, moment: str) -> None:
    """An outage that outlasts all patience ends no deployment: nothing could be told of its end."""
    world.patience = 0.1
    before, asked = world.deploy(), world.push()

    def lose_the_database(seen: str, stage: Stage | None) -> None:
        if (seen, stage) == (moment, Stage.START):
            world.store.away = True
            raise PlatformBroke("The platform's own database does not answer.", code="store_unreachable")

    world.store.tables.witness = lose_the_database
    with pytest.raises(PlatformBroke) as caught:
        world.runner().run(asked)
    assert caught.value.code == "store_unreachable"
    world.store.away = False
    world.store.tables.witness = lambda _moment, _stage: None
    assert world.serving() == {before.id}
    assert world.go_on(asked.id).state is State.SUCCEEDED


def test_a_stage_that_cannot_reach_the_database_does_not_break(world: World) -> None:
    world.patience = 0.1
    asked, start = world.push(), world.containers.start

    def away(*_words):
        raise PlatformBroke("The platform's own database does not answer.", code="store_unreachable")

    world.containers.start = away
    with pytest.raises(PlatformBroke):
        world.runner().run(asked)
    world.containers.start = start
    assert world.go_on(asked.id).state is State.SUCCEEDED


def test_a_full_disk_of_ours_is_told_as_that(world: World) -> None:
    def full(*_words):
        raise OSError(errno.ENOSPC, "No space left on device")

    world.source.checkout = full
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage, done.failure.code) == (State.BROKEN, Stage.CHECKOUT, "no_space")
    assert done.failure.sentence == "The platform's disk is full: the stage checkout could not write."
    assert done.failure.hint
    assert world.faults == []


def test_tests_that_a_restarted_engine_cut_off_begin_from_the_start(world: World) -> None:
    """What it left of them proves nothing, and must not be joined."""
    run, destroy = world.containers.run, world.containers.destroy
    calls: list[str] = []

    def run_once_in_vain(environment: Environment, *more):
        if environment.name.startswith("test-") and "run" not in calls:
            calls.append("run")
            raise PlatformBroke("Docker cannot be reached.", code="docker_unreachable")
        calls.append("run")
        return run(environment, *more)

    def destroy_later(environment: Environment) -> None:
        calls.append("destroy")
        if calls == ["run", "destroy"]:
            raise PlatformBroke("Docker cannot be reached.", code="docker_unreachable")
        destroy(environment)

    world.containers.run, world.containers.destroy = run_once_in_vain, destroy_later
    done = world.deploy()
    assert done.state is State.SUCCEEDED, world.log(done.id)
    assert calls[:4] == ["run", "destroy", "destroy", "run"]


def test_an_outage_that_outlasts_all_patience_ends_the_deployment(world: World) -> None:
    world.patience = 0.2
    before = world.deploy()

    def away(*_words):
        raise PlatformBroke("The registry does not answer.", code="registry_unreachable", hint="Look at it.")

    world.images.pull = away
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage) == (State.BROKEN, Stage.PREPARE)
    assert vars(done.failure) == {
        "code": "registry_unreachable",
        "sentence": "The registry does not answer.",
        "hint": "Look at it.",
    }
    assert world.serving() == {before.id}


def test_an_outage_that_outlasts_the_stage_is_no_fault_of_the_project(world: World) -> None:
    def away(*_words):
        raise PlatformBroke("The registry does not answer.", code="registry_unreachable")

    world.images.pull = away
    done = world.deploy(MANIFEST + "timeouts: {prepare: 300ms}\n")
    assert done.failure
    assert (done.state, done.failure.code) == (State.BROKEN, "registry_unreachable")


# --- undoing, when the world has changed ---


SICK = ((True, "HTTP 200"), (True, "HTTP 200"), (False, "HTTP 503"))


def test_undoing_gives_back_the_hostnames_of_before(world: World) -> None:
    before = world.deploy(MANIFEST.replace("branch: develop}}", "branch: develop}, domains: [www.shop.test]}"))
    assert len(world.proxy.targets("www.shop.test")) == 2
    world.probes.answer("web", *SICK)
    done = world.deploy()
    assert done.state is State.UNDONE
    assert len(world.proxy.targets("www.shop.test")) == 2
    assert world.serving() == {before.id}
    with world.store.transaction() as records:
        assert records.environments.hostnames(world.environment) == [HOST, "www.shop.test"]


def test_undoing_does_without_a_hostname_that_somebody_took(world: World) -> None:
    before = world.deploy(MANIFEST.replace("branch: develop}}", "branch: develop}, domains: [www.shop.test]}"))
    world.probes.answer("web", *SICK)
    switch = world.proxy.switch

    def then_somebody_takes_it(environment: Environment, hostnames, routes, fence) -> None:
        world.proxy.switch = switch
        switch(environment, hostnames, routes, fence)
        with world.store.transaction() as records:
            other = records.environments.ensure(records.projects.add("other", "/o"), Destination("x", Tier.NONPROD))
            records.environments.claim_hostnames(other, ["www.shop.test"])

    world.proxy.switch = then_somebody_takes_it
    done = world.deploy()
    assert (done.state, world.serving()) == (State.UNDONE, {before.id})
    assert world.proxy.targets("www.shop.test") == ()


def test_a_sick_release_stays_where_nothing_is_left_to_go_back_to(world: World) -> None:
    before = world.deploy()
    world.probes.answer("web", *SICK)
    mark = world.proxy.mark

    def and_somebody_cleans_up() -> int:
        for one in world.containers.instances(world.environment, before.id):
            world.containers.lose(one)
        return mark()

    world.proxy.mark = and_somebody_cleans_up
    done = world.deploy()
    assert done.failure
    assert (done.state, done.failed_stage) == (State.FAILED, Stage.WATCH)
    assert "still live" in done.failure.hint
    assert world.serving() == {done.id} == {world.live()}
    assert world.faults == []


def test_users_who_have_the_old_release_back_make_it_undone(world: World) -> None:
    before = world.deploy()
    world.probes.answer("web", *SICK)

    def refuse(*_words, **_named) -> None:
        raise PlatformBroke("Docker would not.", code="docker_refused")

    world.containers.stop = refuse
    done = world.deploy()
    assert (done.state, world.live(), world.serving()) == (State.UNDONE, before.id, {before.id})


def test_a_first_sick_release_promises_nothing_to_go_back_to(world: World) -> None:
    world.probes.answer("web", *SICK)
    done = world.deploy()
    assert done.failure
    assert "live again" not in done.failure.hint


def test_containers_that_vanish_before_the_switch_are_named(world: World) -> None:
    before = world.deploy()
    asked = world.push()
    world.die("before", Stage.SWITCH)
    with pytest.raises(Killed):
        world.runner().run(asked)
    for one in world.containers.instances(world.environment, asked.id):
        world.containers.lose(one)
    done = world.go_on(asked.id)
    assert done.failure
    assert (done.state, done.failure.code) == (State.FAILED, "containers_gone")
    assert world.serving() == {before.id} == {world.live()}


@pytest.mark.parametrize("stage", [Stage.START, Stage.VERIFY, Stage.SWITCH, Stage.WATCH, Stage.DRAIN, Stage.UNDO])
@pytest.mark.parametrize("whose", ["old", "new", "all"])
def test_what_is_removed_by_hand_in_the_middle_is_told(world: World, stage: Stage, whose: str) -> None:
    brief = MANIFEST.replace("window: 0.3s", "window: 0.1s")
    before = world.deploy(brief)
    if stage is Stage.UNDO:
        world.probes.answer("web", *SICK)

    def somebody_cleans_up(moment: str, begun: Stage | None) -> None:
        if (moment, begun) == ("begin", stage):
            for one in world.containers.instances(world.environment):
                if whose == "all" or (one.deployment == before.id) == (whose == "old"):
                    world.containers.lose(one)
            if whose == "all":
                world.containers.networks.clear()

    world.store.tables.witness = somebody_cleans_up
    done = world.deploy(brief)
    assert done.state.final
    assert world.faults == []
    assert "internal" not in {done.failure.code if done.failure else ""}
    assert "fault of its own" not in world.log(done.id)
    if whose == "new" and stage in {Stage.VERIFY, Stage.SWITCH, Stage.WATCH}:
        assert world.live() == before.id
        assert done.failure
        assert "removed" in f"{done.failure.sentence} {done.failure.hint}"


def test_the_old_release_drains_for_as_long_as_it_asked(world: World) -> None:
    world.deploy(MANIFEST.replace("stop_grace_period: 0.2s", "stop_grace_period: 45s"))
    graces: list[float] = []
    stop = world.containers.stop
    world.containers.stop = lambda place, number, grace: graces.append(grace) or stop(place, number, grace)
    world.deploy(
        MANIFEST.replace("healthcheck: {command: beat", "stop_grace_period: 1s\n    healthcheck: {command: beat")
    )
    assert graces == [45.0]


def test_old_containers_stop_though_the_proxy_cannot_say_who_is_busy(world: World) -> None:
    brief = MANIFEST.replace("command: work", "command: work\n    stop_grace_period: 0.2s")
    world.deploy(brief)

    def away(_targets) -> int:
        raise PlatformBroke("The proxy does not answer.", code="proxy_unreachable")

    world.proxy.in_flight = away
    done = world.deploy(brief)
    assert world.containers.running(world.environment) == [done.id]


def test_busy_containers_do_not_outlive_the_time_to_drain(world: World) -> None:
    world.deploy()
    world.proxy.busy.update(dict.fromkeys(world.proxy.targets(HOST), 1))
    done = world.deploy(MANIFEST + "timeouts: {drain: 500ms}\n")
    with world.store.transaction() as records:
        (drain,) = [record for record in records.deployments.stages(done.id) if record.name is Stage.DRAIN]
    assert (drain.state, world.containers.running(world.environment)) == ("passed", [done.id])


def test_the_grace_of_old_containers_ends_with_the_time_to_drain(world: World) -> None:
    patient = MANIFEST.replace("stop_grace_period: 0.2s", "stop_grace_period: 3h") + "timeouts: {drain: 20s}\n"
    first = world.deploy(patient)
    world.deploy(patient)
    assert 0 < world.containers.graces[first.id] <= 20


def test_every_stage_has_a_time_limit() -> None:
    assert set(TIME_LIMITS) == set(Stage)
    assert set(get_args(AdjustableStage)) < set(Stage)


def test_tests_that_end_in_a_fault_of_ours_leave_nothing(world: World) -> None:
    def stumble(*_words) -> int:
        raise KeyError("insides")

    world.containers.run = stumble
    networks = set(world.containers.networks)
    done = world.deploy()
    assert (done.failed_stage, done.state) == (Stage.TEST, State.BROKEN)
    assert world.containers.networks == networks


def test_a_release_whose_image_was_lost_is_built_again_by_the_next_deployment(world: World) -> None:
    commit = world.deploy()
    asked = world.source.resolve("shop", REPOSITORY, "develop")
    world.images.lose_all()
    states = []
    for _ in range(2):
        claimed = world.ask(asked)
        world.runner().run(claimed)
        done = world.deployment(claimed.id)
        states.append((done.state, done.failure.code if done.failure else "", done.release))
    assert states == [(State.BROKEN, "image_gone", commit.release), (State.SUCCEEDED, "", commit.release)]
