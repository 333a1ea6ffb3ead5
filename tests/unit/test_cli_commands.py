"""Every command against a platform by hand: what it asks for, what it prints, how it ends."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline import __version__, wire, wire_audit, wire_changes, wire_people
from branchline.cli import config_files
from branchline.domain.access import Permission, Role
from branchline.domain.changes import FileChange
from branchline.domain.deployment import State, Trigger
from branchline.domain.pipeline import StageState
from branchline.wire_config import ConfigStatus, LayerVersion
from tests.fakes.api import COMMIT, START, TOKEN, Canned, FakeApi, Story, deployment
from tests.fakes.command_line import CommandLine


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        yield server


@pytest.fixture
def cli(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    line = CommandLine(monkeypatch, capsys, tmp_path)
    line.speak_to(api.url, TOKEN)
    return line


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Anna", "-c", "user.email=anna@example.com", "-c", "init.defaultBranch=develop"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Standard input that is a pipe."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))


# --- deploy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.SUCCEEDED, 0),
        (State.FAILED, 1),
        (State.UNDONE, 1),
        (State.CANCELLED, 1),
        (State.SUPERSEDED, 1),
        (State.BROKEN, 4),
    ],
)
def test_deploy_ends_as_the_deployment_does(cli: CommandLine, api: FakeApi, state: State, status: int) -> None:
    api.next_story = Story().stage("build", "passed", "a line").end(deployment(1, state)).steps
    ran = cli("deploy", "shop", "--ref", "develop")
    assert ran.status == status
    assert "    a line\n" in ran.out
    assert ran.err == ""


def test_deploy_says_what_it_wants(cli: CommandLine, api: FakeApi) -> None:
    ran = cli("deploy", "shop", "--ref", "v1", "--commit", COMMIT[:9], "--reason", "a hurry – ü", "--no-watch")
    assert ran.status == 0
    assert ran.out == (
        "Deployment 1 of shop to develop is queued.\nFollow it: branchline deployments logs 1 --follow\n"
    )
    method, path, body = api.requests[0]
    assert (method, path) == ("POST", "projects/shop/deployments")
    asked = wire.NewDeployment.model_validate(body)
    assert asked == wire.NewDeployment(ref="v1", commit=COMMIT[:9], trigger=Trigger.CLI, reason="a hurry – ü")


def test_deploy_as_json_is_the_deployment_and_nothing_else(cli: CommandLine, api: FakeApi) -> None:
    api.next_story = Story().stage("build", "passed", "a line").end(deployment(1, State.FAILED)).steps
    ran = cli("deploy", "shop", "--ref", "develop", "--json")
    assert ran.status == 1
    assert wire.DeploymentView.model_validate(ran.json) == deployment(1, State.FAILED)
    assert "a line" in ran.err
    queued = cli("deploy", "shop", "--ref", "develop", "--json", "--no-watch")
    assert (queued.status, queued.json["state"], queued.err) == (0, "queued", "")


def test_deploy_takes_the_branch_that_is_checked_out(cli: CommandLine, api: FakeApi) -> None:
    git(cli.folder, "init")
    git(cli.folder, "switch", "--create", "feature/käse")
    assert cli("deploy", "shop", "--no-watch").status == 0
    assert api.requests[0][2]["ref"] == "feature/käse"


def test_deploy_says_when_the_platform_has_another_commit(cli: CommandLine, api: FakeApi) -> None:
    git(cli.folder, "init")
    git(cli.folder, "commit", "--allow-empty", "-m", "one")
    here = git(cli.folder, "rev-parse", "HEAD").strip()
    ran = cli("deploy", "shop", "--no-watch")
    assert f"{here[:8]} is checked out here, but the repository's branch develop is at 1a2b3c4d" in ran.err
    assert cli("deploy", "shop", "--no-watch", "--ref", "develop").err == ""


def test_deploy_needs_a_ref_where_no_branch_is(cli: CommandLine, api: FakeApi) -> None:
    outside = cli("deploy", "shop")
    assert outside.status == 2
    assert outside.err == (
        "Error: This folder is no git repository, so the ref must be given.\n"
        "Hint: `branchline deploy shop --ref main`\n"
    )
    git(cli.folder, "init")
    git(cli.folder, "commit", "--allow-empty", "-m", "one")
    git(cli.folder, "switch", "--detach")
    assert "No branch is checked out here" in cli("deploy", "shop").err
    assert api.requests == []


# --- deployments -----------------------------------------------------------------------------------------------------


def test_deployments_are_listed_newest_first(cli: CommandLine, api: FakeApi) -> None:
    for number in (1, 2, 3):
        api.add(deployment(number, State.SUCCEEDED, live=number == 3))
    api.add(deployment(4, State.RUNNING, project="till", environment="staging", ref="refs/tags/v1"))
    assert cli("deployments", "list").out.splitlines()[:3] == [
        "ID   PROJECT   ENVIRONMENT   STATE              REF              COMMIT     ASKED FOR             TOOK   BY",
        "4    till      staging       running            tag v1           1a2b3c4d   2030-01-02 03:04:05          anna",
        "3    shop      develop       succeeded (live)   branch develop   1a2b3c4d   2030-01-02 03:04:05   12 s   anna",
    ]
    ran = cli("deployments", "list", "shop", "--env", "develop", "--limit", "2", "--json")
    assert [one["id"] for one in ran.json["items"]] == [3, 2]
    assert wire.Page.model_validate(ran.json).next == 2
    assert "--before 2" in cli("deployments", "list", "shop", "--limit", "2").err
    older = cli("deployments", "list", "shop", "--before", "2", "--json")
    assert [one["id"] for one in older.json["items"]] == [1]


def test_no_deployments(cli: CommandLine) -> None:
    assert cli("deployments", "list").out == "There are no deployments.\n"
    assert cli("deployments", "list", "--json").json == {"items": [], "next": None}


def test_a_deployment_is_shown(cli: CommandLine, api: FakeApi) -> None:
    stage = wire.StageView(
        name="test",
        state=StageState.FAILED,
        started_at=START,
        finished_at=START + timedelta(seconds=3),
        seconds=3,
        note="2 failed",
    )
    failure = wire.FailureView(code="tests_failed", sentence="The tests failed.", hint="Look at them.")
    view = deployment(5, State.FAILED, failure=failure, failed_stage="test", stages=[stage], reason="why not")
    api.add(view)
    ran = cli("deployments", "show", "5")
    assert ran.status == 0
    for line in ("failure     The tests failed. (tests_failed)", "hint        Look at them.", "reason      why not"):
        assert line in ran.out
    assert "\nSTAGE   STATE    TOOK    NOTE\ntest    failed   3.0 s   2 failed\n" in ran.out
    assert "\nWHAT CHANGED\nIt ended before that was found out.\n" in ran.out
    assert wire.DeploymentView.model_validate(cli("deployments", "show", "5", "--json").json) == view


STORY = """\
Deployment 42: shop → develop

by          anna (token laptop) from 10.0.0.7, through cli
reason      The till is slow
asked for   2030-01-02 03:04:05
source      branch develop at 1a2b3c4d1a2b3c4d1a2b3c4d1a2b3c4d1a2b3c4d
subject     Add the till

WHAT CHANGED
Since deployment 41, which was live at 9f8e7d6c9f8e:
  102 commits
    cccccccc  2030-01-02  A subject that is rather long, because whoever wrote
                          it did not know when to stop (Ada Lovelace)
    and 101 older ones
  1 commit, of the release before, went
    dddddddd  2030-01-02  A mistake (Ada Lovelace)
  1 database migration
    added     shop/migrations/0002_till.py
  config of develop, version 3 → 4
    set       API_KEY
    changed   KEY_NUMBER_0, KEY_NUMBER_1, KEY_NUMBER_2, KEY_NUMBER_3,
              KEY_NUMBER_4, KEY_NUMBER_5
    hidden    X
    removed   OLD
  config of login, version none → 2
    Not known: Version 2 of the config of shop login is gone from the store.

STAGE   STATE    TOOK    NOTE
test    passed   3.0 s   A note that is so long that it goes on in the next
                         line, where it ends (attempt 2)

WHAT CAME OF IT
state       succeeded
outcome     Went live; replaced by 43 after 3 h.
began       2030-01-02 03:04:06
switched    2030-01-02 03:04:13
ended       2030-01-02 03:04:17
took        12 s, of which it waited 1.2 s
carried by  runner nonprod-host-12, in attempt 2
release     7
image       shop@sha256:abababababababababababababababababababababababababababababababab
config      develop 4
replaces    deployment 41
replaced    by deployment 43
url         http://develop-shop.localhost:8080
"""


def test_the_whole_story_of_a_deployment(cli: CommandLine, api: FakeApi) -> None:
    def commit(sign: str, subject: str) -> wire_changes.CommitView:
        return wire_changes.CommitView(sha=sign * 40, author="Ada Lovelace", at=START, subject=subject)

    long = "A subject that is rather long, because whoever wrote it did not know when to stop"
    changes = wire_changes.ChangesView(
        since=41,
        before="9f8e7d6c" * 5,
        came=wire_changes.CommitsView(total=102, newest=[commit("c", long)]),
        went=wire_changes.CommitsView(total=1, newest=[commit("d", "A \x1b[31mmistake")]),
        migrations_total=1,
        migrations=[wire_changes.MigrationView(path="shop/migrations/0002_till.py", what=FileChange.ADDED)],
        config=[
            wire_changes.LayerChangesView(
                layer="develop",
                before=3,
                after=4,
                set=["API_KEY"],
                changed=[f"KEY_NUMBER_{number}" for number in range(6)],
                hidden=["X"],
                removed=["OLD"],
            ),
            wire_changes.LayerChangesView(
                layer="login",
                before=0,
                after=2,
                unknown="Version 2 of the config of shop login is gone from the store.",
            ),
        ],
    )
    stage = wire.StageView(
        name="test",
        state=StageState.PASSED,
        started_at=START,
        finished_at=START + timedelta(seconds=3),
        seconds=3,
        note="A note that is so long that it goes on in the next line, where it ends",
        attempts=2,
    )
    view = deployment(
        42,
        State.SUCCEEDED,
        proof="token laptop",
        source="10.0.0.7",
        reason="The till is slow",
        started_at=START + timedelta(seconds=1.2),
        switched_at=START + timedelta(seconds=8),
        outcome="Went live; replaced by 43 after 3 h.",
        release=7,
        image="shop@sha256:" + "ab" * 32,
        config={"shop/_common": 0, "shop/env/develop": 4},
        runner="nonprod-host-12",
        attempts=2,
        replaces=41,
        replaced_by=43,
        url="http://develop-shop.localhost:8080",
        stages=[stage],
        changes=changes,
    )
    api.add(view)
    assert cli("deployments", "show", "42").out == STORY
    assert all(len(line) <= 80 for line in STORY.splitlines() if "sha256" not in line)
    assert wire.DeploymentView.model_validate(cli("deployments", "show", "42", "--json").json) == view


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (None, "That is not known yet."),
        (wire_changes.ChangesView(), "Nothing was live here before, so there is nothing to compare with."),
        (wire_changes.ChangesView(since=1, before="b" * 40), "  the same commit\n  the same config"),
        (
            wire_changes.ChangesView(since=1, before="b" * 40, unknown="It went.", config_unknown="Nobody wrote it."),
            "  Commits and migrations are not known: It went.\n  Config keys are not known: Nobody wrote it.",
        ),
    ],
)
def test_where_there_is_little_to_compare(
    cli: CommandLine, api: FakeApi, changes: wire_changes.ChangesView | None, told: str
) -> None:
    api.add(deployment(5, State.RUNNING, changes=changes))
    said = cli("deployments", "show", "5").out.partition("WHAT CHANGED\n")[2].partition("\n\nWHAT CAME")[0]
    assert said.removeprefix(f"Since deployment 1, which was live at {'b' * 12}:\n") == told


def test_logs_are_read_part_by_part(cli: CommandLine, api: FakeApi) -> None:
    story = Story()
    for number in range(2500):
        story.line("build", f"line {number}")
    story.line("test", "\x1b[31mred\x1b[0m ü")
    api.add(deployment(5, State.SUCCEEDED), story.steps)
    ran = cli("deployments", "logs", "5")
    lines = ran.out.splitlines()
    assert (lines[0], lines[-1]) == ("03:04:05 build     line 0", "03:04:05 test      red ü")
    assert len(lines) == 2501
    as_json = cli("deployments", "logs", "5", "--json").json
    assert [wire.LogLine.model_validate(line).text for line in as_json][-1] == "\x1b[31mred\x1b[0m ü"
    assert len(as_json) == 2501


def test_following_the_log_of_a_deployment_ends_as_it_does(cli: CommandLine, api: FakeApi) -> None:
    story = Story().stage("build", "passed", "hello").end(deployment(5, State.FAILED))
    api.add(deployment(5, State.RUNNING), story.steps)
    ran = cli("deployments", "logs", "5", "-f")
    assert ran.status == 1
    assert "    hello\n" in ran.out
    assert "✗ Deployment 5 failed" in ran.out


def test_cancelling(cli: CommandLine, api: FakeApi) -> None:
    api.add(deployment(5, State.RUNNING))
    api.add(deployment(6, State.SUCCEEDED))
    assert cli("deployments", "cancel", "5").out.startswith("Deployment 5 was asked to stop")
    assert api.deployments[5].view.cancel_requested
    assert cli("deployments", "cancel", "6").out == "Deployment 6 is succeeded.\n"
    assert cli("deployments", "cancel", "5", "--json").json["cancel_requested"] is True
    missing = cli("deployments", "cancel", "77")
    assert (missing.status, missing.err) == (2, "Error: There is no deployment 77.\n")


# --- projects, environments ------------------------------------------------------------------------------------------


def test_projects(cli: CommandLine, api: FakeApi) -> None:
    added = cli("project", "add", "till", "--repo", "/srv/till.git")
    assert (added.status, added.out) == (0, "Added till, from /srv/till.git.\n")
    assert api.projects["till"] == "/srv/till.git"
    again = cli("project", "add", "till", "--repo", "/srv/till.git", "--json")
    assert (again.status, again.json["code"]) == (2, "project_exists")
    assert [one["name"] for one in cli("project", "list", "--json").json] == ["shop", "till"]
    assert "till      /srv/till.git" in cli("project", "list").out
    shown = cli("project", "show", "shop")
    assert "repository  https://git.example.com/shop.git" in shown.out
    assert "http://develop-shop.localhost:8080" in shown.out
    assert wire.ProjectView.model_validate(cli("project", "show", "shop", "--json").json).name == "shop"
    assert cli("project", "show", "nothing").status == 2


def test_environments(cli: CommandLine, api: FakeApi) -> None:
    live, running = deployment(3, State.SUCCEEDED), deployment(4, State.RUNNING)
    environment = api.environments["shop", "develop"].model_copy(update={"live": live, "running": running, "queued": 2})
    api.environments["shop", "develop"] = environment
    assert cli("env", "list", "shop").out.splitlines()[1] == (
        "develop       nonprod   3      1a2b3c4d   4         2        http://develop-shop.localhost:8080"
    )
    assert [wire.EnvironmentView.model_validate(one) for one in cli("env", "list", "shop", "--json").json] == [
        environment
    ]
    shown = cli("env", "show", "shop", "develop").out
    assert "live         deployment 3: branch develop at 1a2b3c4d" in shown
    assert "queued       2" in shown
    assert wire.EnvironmentView.model_validate(cli("env", "show", "shop", "develop", "--json").json) == environment
    opened = cli("env", "open", "shop", "develop")
    assert (opened.status, opened.out) == (0, "http://develop-shop.localhost:8080\n")
    assert cli("env", "show", "shop", "nowhere").status == 2


def test_what_an_environment_lacks_is_told(cli: CommandLine, api: FakeApi) -> None:
    trouble = "Web 1 is missing, and cannot be put back: The registry does not have this image any more."
    api.environments["shop", "develop"] = api.environments["shop", "develop"].model_copy(update={"trouble": trouble})
    assert f"trouble      {trouble}" in cli("env", "show", "shop", "develop").out
    assert trouble in cli("env", "list", "shop").out
    assert cli("env", "list", "shop", "--json").json[0]["trouble"] == trouble


def test_how_the_live_config_stands_to_the_newest(cli: CommandLine, api: FakeApi) -> None:
    def told(live: int, newest: int, *, gone: bool = False, keys: tuple[str, ...] = ()) -> str:
        layers = [LayerVersion(layer="_common", live=1, newest=1)]
        layers += [LayerVersion(layer="develop", live=live, newest=newest, gone=gone)]
        status = ConfigStatus(behind=live != newest, layers=layers, keys=[*keys])
        shop = api.environments["shop", "develop"].model_copy(update={"config": status})
        api.environments["shop", "develop"] = shop
        return next(line for line in cli("env", "show", "shop", "develop").out.splitlines() if "config" in line)

    apply = "`branchline config apply shop develop`"
    assert told(2, 2) == "config       up to date"
    assert told(2, 3, keys=("A",)) == f"config       behind: develop 2 of 3 (A); {apply} deploys it"
    gone = f"version 2 of develop is gone: what is live cannot be mended or repeated; {apply} deploys anew"
    assert told(2, 2, gone=True) == told(2, 3, gone=True, keys=("A",)) == f"config       {gone}"


def test_an_environment_without_an_address_cannot_be_opened(cli: CommandLine, api: FakeApi) -> None:
    api.environments["shop", "develop"] = api.environments["shop", "develop"].model_copy(update={"url": None})
    ran = cli("env", "open", "shop", "develop")
    assert (ran.status, ran.out) == (2, "")
    assert "has no address" in ran.err


# --- config ----------------------------------------------------------------------------------------------------------


def test_config_is_set_listed_read_and_unset(cli: CommandLine, api: FakeApi) -> None:
    ran = cli("config", "set", "shop", "develop", "A=1", "B=x=y z", "EMPTY=")
    assert ran.status == 0
    assert ran.out == "Set 3 settings in shop develop; the config is at version 1 now.\n"
    assert api.config == {"A": "1", "B": "x=y z", "EMPTY": ""}
    assert len(api.requests) == 1, "all at once"
    assert [line.split() for line in cli("config", "list", "shop", "develop").out.splitlines()[1:]] == [
        ["A", "develop"],
        ["B", "develop"],
        ["EMPTY", "develop"],
    ]
    keys = dict.fromkeys(("A", "B", "EMPTY"), "develop")
    assert cli("config", "list", "shop", "develop", "--json").json["keys"] == keys
    assert cli("config", "get", "shop", "develop", "B").out == "x=y z\n"
    assert cli("config", "get", "shop", "develop", "B", "--json").json["value"] == "x=y z"
    assert cli("config", "unset", "shop", "develop", "A", "B", "--json").json["version"] == 2
    assert api.config == {"EMPTY": ""}
    assert cli("config", "get", "shop", "develop", "A").status == 2
    refused = cli("config", "get", "shop", "production", "A")
    assert (refused.status, refused.err) == (3, "Error: Nobody reads production's config.\nHint: Write it instead.\n")


def test_config_is_explained_compared_and_has_a_history(cli: CommandLine, api: FakeApi) -> None:
    cli("config", "set", "shop", "develop", "A=hush")
    rows = [line.split() for line in cli("config", "explain", "shop", "develop").out.splitlines()]
    assert rows[1][:3] == ["A", "develop", "1"]
    assert rows[1][-1] == "anna"
    assert rows[2] == ["hides", "_common", "outside", "of", "Branchline"]
    one = cli("config", "explain", "shop", "develop", "A")
    assert "? Version 3 of _common was written outside of Branchline" in one.err
    assert cli("config", "explain", "shop", "develop", "--json").json[0]["origin"]["by"] == "anna"
    history = cli("config", "history", "shop", "develop").out.splitlines()
    assert (history[1].split()[0], history[1].split()[3:]) == ("2", ["anna", "A,", "B", "removed"])
    assert history[2].split()[3:] == ["outside", "of", "Branchline", "(gone)"]
    diff = [line.split("  ") for line in cli("config", "diff", "shop", "develop", "staging").out.splitlines()]
    assert [[part.strip() for part in line if part.strip()] for line in diff[1:]] == [
        ["A", "only in develop", "develop"],
        ["B", "in both", "develop", "staging"],
    ]


def test_a_key_is_hidden(cli: CommandLine, api: FakeApi) -> None:
    assert cli("config", "unset", "shop", "login", "A", "B", "--hide").status == 0
    assert api.hidden == {"A", "B"}
    refused = cli("config", "set", "shop", "login", "A=1", "--if-version", "7", "--json")
    assert (refused.status, refused.json["code"]) == (2, "config_changed")


AWKWARD = {
    "PLAIN": "postgresql://u:p@h/db?x=1",
    "EMPTY": "",
    "QUOTES": "it's \"so\" \\ and \\'",
    "LINES": "-----BEGIN-----\nline\n-----END-----\n",
    "DOLLAR": "${PLAIN} $HOME #no comment",
    "SPACES": "  both ends  ",
    "UNICODE": "pässwörd ☂",
}


@pytest.mark.parametrize("name", ["settings.env", "settings.json"])
def test_settings_travel_by_file(cli: CommandLine, api: FakeApi, name: str) -> None:
    api.config = dict(AWKWARD)
    file = cli.home / name
    file.write_text("others could read this")
    file.chmod(0o644)
    exported = cli("config", "export", "shop", "develop", str(file))
    assert (exported.status, exported.out) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    api.config = {}
    assert "Set 7 settings in shop develop" in cli("config", "import", "shop", "develop", str(file)).out
    assert api.config == AWKWARD


@given(
    values=st.dictionaries(
        st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,9}\Z"), st.text(max_size=40).filter(lambda x: "\0" not in x)
    )
)
def test_whatever_is_exported_is_imported_alike(values: dict[str, str]) -> None:
    assert config_files._from_env(config_files.to_env(values)) == values


def test_an_import_can_replace_what_was_there(cli: CommandLine, api: FakeApi) -> None:
    cli("config", "set", "shop", "develop", "OLD=1", "A=1")
    (cli.home / "x.env").write_text("# comment\nexport A=2\n\nB=3 # why\n")
    ran = cli("config", "import", "shop", "develop", str(cli.home / "x.env"), "--replace")
    assert ran.out == "Set 2 settings and removed 1 in shop develop; the config is at version 2 now.\n"
    assert api.config == {"A": "2", "B": "3"}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("x.env", b"A=1\nsecret words\n=x", "bad_env_file"),
        ("x.env", b"A", "value_missing"),
        ("x.env", b"A=1\nA=2", "given_twice"),
        ("x.env", b"1A=secret", "bad_key"),
        ("x.env", b"A=\xff\xfe", "bad_value"),
        ("x.env", b"A=secret\0", "bad_value"),
        ("x.env", b"", "nothing_to_import"),
        ("x.json", b"{", "bad_json_file"),
        ("x.json", b"[1]", "bad_json_file"),
        ("x.json", b'{"A": {"B": "secret"}}', "bad_json_file"),
        ("x.json", b'{"A-B": null}', "bad_key"),
        ("x.json", b'{"PORT": 8000}', "platforms_key"),
        ("x.env", b"BRANCHLINE_RELEASE=secret", "platforms_key"),
        ("x.json", b'{"A": NaN}', "bad_json_file"),
        ("x.json", b"[" * 100_000, "bad_json_file"),
        ("x.json", b'{"A": "\\ud800"}', "bad_value"),
        ("x.json", b"{}", "nothing_to_import"),
        ("x.json", b'{"A": "1", "A": "2"}', "given_twice"),
    ],
)
def test_a_file_that_makes_no_sense_changes_nothing(
    cli: CommandLine, api: FakeApi, name: str, content: bytes, code: str
) -> None:
    (cli.home / name).write_bytes(content)
    ran = cli("config", "import", "shop", "develop", str(cli.home / name), "--json")
    assert (ran.status, ran.json["code"]) == (2, code)
    assert "secret" not in ran.out + ran.err
    assert api.config == {}


def test_an_export_leaves_nothing_half_done(cli: CommandLine, api: FakeApi) -> None:
    api.config = {"A": "hush-hush"}
    for words in ((str(cli.home),), ("/dev/null",), (str(cli.home / "no" / "such"),), (str(cli.home / "x"), "--json")):
        ran = cli("config", "export", "shop", "develop", *words)
        assert ran.status == 2, words
        assert "hush" not in ran.out + ran.err
    assert [path.name for path in cli.home.parent.rglob("*.new")] == []
    assert Path("/dev/null").is_char_device()


def test_hidden_keys_travel_as_json(cli: CommandLine, api: FakeApi) -> None:
    file = cli.home / "x.json"
    cli("config", "set", "shop", "login", "A=1", "OLD=1")
    cli("config", "unset", "shop", "login", "B", "C", "--hide")
    exported = cli("config", "export", "shop", "login", str(file), "--own")
    assert json.loads(file.read_text()) == {"A": "1", "B": None, "C": None, "OLD": "1"}
    assert exported.err == f"Wrote 2 settings of shop login, and that it hides 2, to {file}.\n"
    file.write_text('{"A": "2", "B": null, "D": null}')
    ran = cli("config", "import", "shop", "login", str(file), "--replace")
    assert ran.out == "Set 1 setting, hid 2 and removed 2 in shop login; the config is at version 3 now.\n"
    assert (api.config, api.hidden) == ({"A": "2"}, {"B", "D"})
    file.write_text('{"A": null}')
    assert cli("config", "import", "shop", "login", str(file)).out.startswith("Hid 1 setting in shop login;")
    assert (api.config, api.hidden) == ({}, {"A", "B", "D"})


def test_a_file_that_cannot_name_hidden_keys_leaves_them_alone(cli: CommandLine, api: FakeApi) -> None:
    file = cli.home / "x.env"
    cli("config", "set", "shop", "login", "A=1")
    cli("config", "unset", "shop", "login", "B", "C", "--hide")
    exported = cli("config", "export", "shop", "login", str(file), "--own")
    assert "because .env cannot say that they are hidden: B, C. JSON can." in exported.err
    file.write_text("D=1\nC=1\n")
    ran = cli("config", "import", "shop", "login", str(file), "--replace")
    assert ran.out.startswith("Set 2 settings and removed 1 in shop login;")
    assert "Still hidden, because .env cannot say whether they should be: B." in ran.err
    assert (api.config, api.hidden) == ({"C": "1", "D": "1"}, {"B"})


@pytest.mark.parametrize("words", [(), ("--replace",)])
def test_an_import_insists_on_a_version(cli: CommandLine, api: FakeApi, words: tuple[str, ...]) -> None:
    cli("config", "set", "shop", "develop", "A=1")
    (cli.home / "x.env").write_text("A=2\n")
    command = ("config", "import", "shop", "develop", str(cli.home / "x.env"), *words, "--json", "--if-version")
    assert cli(*command, "0").json["code"] == "config_changed"
    assert api.config == {"A": "1"}
    assert cli(*command, "1").json["version"] == 2


def test_an_environment_that_is_yet_to_be_is_told_of(cli: CommandLine, api: FakeApi) -> None:
    (cli.home / "x.env").write_text("A=2\n")
    api.perhaps_meant = "staging"
    yet = "shop has no environment stagin yet: its first deployment takes this up. Did you mean staging?\n"
    for words in (("set", "A=1"), ("import", str(cli.home / "x.env")), ("unset", "A"), ("set", "A=1", "--json")):
        ran = cli("config", words[0], "shop", "stagin", *words[1:])
        assert (ran.status, ran.err) == (0, yet), words
    assert ran.json["environment_exists"] is False
    api.perhaps_meant = ""
    assert (
        cli("config", "set", "shop", "staging", "A=1").err
        == yet.replace("stagin ", "staging ").partition(" Did")[0] + "\n"
    )
    assert "makes one" in cli("config", "set", "shop", "_common", "A=1").err


def test_names_that_would_lead_elsewhere_are_not_sent(cli: CommandLine, api: FakeApi) -> None:
    for words in (
        ("config", "list", "shop", "feature/login"),
        ("config", "set", "shop", "a/b", "A=1"),
        ("config", "diff", "shop", "develop", "a/b"),
        ("config", "explain", "a/b", "develop"),
        ("env", "show", "shop", "a/b"),
    ):
        ran = cli(*words, *([] if words[1] == "set" else ["--json"]))
        assert ran.status == 2
        assert "cannot be the name of" in ran.err
    assert cli("config", "get", "shop", "develop", "A/B", "--json").json["code"] == "bad_key"
    assert api.requests == []


def test_help_names_the_layer_of_the_project(cli: CommandLine) -> None:
    for command in ("list", "get", "set", "unset", "import", "export", "explain", "diff", "history"):
        assert "_common is the layer of the whole project" in " ".join(cli("config", command, "--help").out.split())
    assert "_common" not in cli("config", "apply", "--help").out


def test_a_replacement_that_is_empty_removes_nothing(cli: CommandLine, api: FakeApi) -> None:
    cli("config", "set", "shop", "develop", "A=1")
    (cli.home / "x.env").write_text("# nothing\n")
    ran = cli("config", "import", "shop", "develop", str(cli.home / "x.env"), "--replace", "--json")
    assert ran.json["code"] == "nothing_to_import"
    assert api.config == {"A": "1"}


def test_numbers_and_truth_in_json_become_text(cli: CommandLine, api: FakeApi) -> None:
    (cli.home / "x.json").write_text('{"WORKERS": 8, "DEBUG": false, "RATE": 1.10}')
    assert cli("config", "import", "shop", "develop", str(cli.home / "x.json")).status == 0
    assert api.config == {"WORKERS": "8", "DEBUG": "false", "RATE": "1.10"}


def test_config_is_applied(cli: CommandLine, api: FakeApi) -> None:
    refused = cli("config", "apply", "shop", "develop", "--json")
    assert (refused.status, refused.json["code"]) == (2, "nothing_live")


def test_secrets_come_from_standard_input_and_files(
    cli: CommandLine, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("key.pem").write_text("-----BEGIN-----\nlines\n-----END-----\n")
    typed(monkeypatch, "pässword\n".encode())
    ran = cli("config", "set", "shop", "develop", "PASSWORD=-", "KEY=@key.pem")
    assert ran.status == 0
    assert api.config == {"PASSWORD": "pässword", "KEY": "-----BEGIN-----\nlines\n-----END-----"}
    assert "pässword" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("A=-", "B=-"), "input_used_twice"),
        (("A=1", "A=2"), "given_twice"),
        (("A=@missing.txt",), "file_unreadable"),
        (("A=@.",), "file_unreadable"),
        (("1A=x",), "bad_key"),
        (("A B=x",), "bad_key"),
        (("A",), "value_missing"),
        (("A=-",), "bad_value"),
        (("A=@/dev/zero",), "bad_value"),
        (("PORT=8000",), "platforms_key"),
        (("BRANCHLINE_RELEASE=1",), "platforms_key"),
    ],
)
def test_settings_that_make_no_sense(
    cli: CommandLine, api: FakeApi, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: str
) -> None:
    typed(monkeypatch, b"\xff\xfe secret")
    ran = cli("config", "set", "shop", "develop", *words, "--json")
    assert (ran.status, ran.json["code"]) == (2, code)
    assert "secret" not in ran.out + ran.err
    assert api.requests == []


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("pässword".encode("utf-16"), "Save it as UTF-8."),
        ("password".encode("utf-16-le"), "Save it as UTF-8."),
        ("password".encode("utf-16-be"), "Save it as UTF-8."),
        ("pässword".encode("utf-32"), "Save it as UTF-8."),
        ("pässword, and more\n".encode("latin-1"), "Save it as UTF-8."),
        (b"\x1f\x8b\x08\x00\xff", "as base64."),
        (b"\x00\x01\x02", "as base64."),
    ],
)
def test_texts_in_other_encodings_are_told_from_binary_values(
    cli: CommandLine, api: FakeApi, content: bytes, hint: str
) -> None:
    Path("value").write_bytes(content)
    ran = cli("config", "set", "shop", "develop", "A=@value")
    assert ran.status == 2
    assert ran.err.endswith(f"{hint}\n")
    assert "word" not in ran.err
    Path("x.env").write_bytes("A=pässword".encode("utf-16"))
    assert cli("config", "import", "shop", "develop", "x.env").err.endswith("Save it as UTF-8.\n")
    assert api.requests == []


def test_the_mark_of_an_editor_is_no_part_of_a_value(cli: CommandLine, api: FakeApi) -> None:
    Path("value").write_bytes("\ufeffx\r\n".encode())
    assert cli("config", "set", "shop", "develop", "A=@value").status == 0
    assert api.config == {"A": "x"}


def test_what_has_no_end_is_not_read_to_its_end(cli: CommandLine, api: FakeApi) -> None:
    ran = cli("config", "import", "shop", "develop", "/dev/zero", "--json")
    assert (ran.status, ran.json["code"]) == (2, "file_too_large")
    assert api.requests == []


# --- access ----------------------------------------------------------------------------------------------------------


def test_whoami(cli: CommandLine, api: FakeApi) -> None:
    assert f"platform  {api.url}, version 0.1.0" in cli("whoami").out
    told = cli("whoami", "--json").json
    assert (told["name"], told["role"], told["roles"], told["proof"]) == ("anna", "admin", {"*": "admin"}, "token")
    assert "roles     admin everywhere\n" in cli("whoami").out


def test_login_verifies_and_stores(cli: CommandLine, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRANCHLINE_URL")
    monkeypatch.delenv("BRANCHLINE_TOKEN")
    assert cli("whoami").status == 3
    typed(monkeypatch, f"{TOKEN}\n".encode())
    ran = cli("login", api.url + "/")
    assert ran.status == 0
    assert ran.out.startswith(f"Logged in to {api.url} as anna (admin everywhere).")
    assert TOKEN not in ran.out + ran.err
    file = cli.home / ".config/branchline/credentials.json"
    assert json.loads(file.read_text()) == {"url": api.url, "token": TOKEN}
    assert cli("whoami").status == 0


def test_login_with_a_wrong_token_stores_nothing(
    cli: CommandLine, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRANCHLINE_TOKEN")
    typed(monkeypatch, b"wrong\n")
    ran = cli("login", api.url)
    assert (ran.status, ran.err) == (3, "Error: Nobody knows who is asking.\nHint: Send a token.\n")
    assert not (cli.home / ".config").exists()
    typed(monkeypatch, b"")
    assert "The token is missing" in cli("login", api.url).err


def test_login_needs_an_address(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRANCHLINE_URL")
    typed(monkeypatch, b"")
    assert cli("login").status == 2
    assert cli("login", "ftp://x").status == 2


def test_tokens(cli: CommandLine, api: FakeApi) -> None:
    made = cli("token", "create", "ci", "--role", "viewer")
    assert (made.status, made.out) == (0, "shown-once\n")
    assert api.tokens["ci"].role is Role.VIEWER
    mine = cli("token", "create", "bob", "--project", "shop", "--permission", "project:read", "--days", "9", "--json")
    shown = wire_people.TokenShown.model_validate(mine.json)
    assert (shown.member, shown.projects, shown.permissions) == ("anna", ["shop"], [Permission.READ])
    assert shown.expires_at == START + timedelta(9)
    assert cli("token", "list").out.splitlines()[1:] == [
        "ci     a machine, viewer                        2030-01-02 03:04:05   never       never",
        "bob    anna                shop, project:read   2030-01-02 03:04:05   never       2030-01-11 03:04:05",
    ]
    assert [one["name"] for one in cli("token", "list", "--json").json] == ["ci", "bob"]
    assert cli("token", "create", "x", "--for", "bob").status == 0
    assert api.tokens["x"].member == "bob"
    assert cli("token", "revoke", "ci").out == "The token ci is revoked.\n"
    assert "ci" not in api.tokens
    assert cli("token", "revoke", "ci").status == 2
    assert cli("token", "create", "x", "--role", "emperor").status == 2


def test_members(cli: CommandLine, api: FakeApi) -> None:
    made = cli("member", "add", "bob", "--role", "developer", "--project", "shop")
    assert made.out == "bob: developer in shop.\n"
    assert "Nobody logs in as bob yet." in made.err
    assert cli("member", "add", "ada", "--role", "viewer", "--email", "ada@example.com").err == ""
    del api.members["ada"]
    assert cli("member", "add", "bob", "--role", "viewer").out == "bob: viewer everywhere, developer in shop.\n"
    assert cli("member", "add", "eng/ops", "--group", "--role", "admin", "--json").json["group"] is True
    assert cli("member", "list").out.splitlines()[1:] == [
        "bob             viewer everywhere, developer in shop                       ".rstrip(),
        "group eng/ops   admin everywhere",
    ]
    assert [one["name"] for one in cli("member", "list", "--project", "shop", "--json").json] == ["bob"]
    assert cli("member", "remove", "bob", "--project", "shop").out == "bob has no role in shop any more.\n"
    assert cli("member", "remove", "eng/ops", "--group").out == "eng/ops has no role everywhere any more.\n"
    assert cli("member", "remove", "bob").status == 2
    assert cli("member", "add", "bob").status == 2, "a role must be said"


def test_the_register(cli: CommandLine, api: FakeApi) -> None:
    line = wire_audit.AuditLine(
        id=9,
        at=START,
        kind="config.changed",
        actor="anna",
        project="shop",
        environment="develop",
        deployment=None,
        detail={"keys": ["A"]},
    )
    api.audit.append(line)
    assert cli("audit", "list").out.splitlines()[1] == (
        '9    2030-01-02 03:04:05   anna    config.changed   shop develop                {"keys": ["A"]}'
    )
    assert [wire_audit.AuditLine.model_validate(one) for one in cli("audit", "list", "--json").json] == [line]
    assert cli("audit", "list", "--project", "till", "--json").json == []


# --- around every command --------------------------------------------------------------------------------------------


def test_errors_have_one_shape(cli: CommandLine, api: FakeApi) -> None:
    body = wire.Problem(code="odd", title="Odd.", detail="Very\nodd.", hint="Wait.", status=503).model_dump_json()
    api.canned["projects"] = Canned(503, body.encode(), "application/problem+json")
    ran = cli("project", "list")
    assert (ran.status, ran.out) == (4, "")
    assert ran.err == "Error: Odd.\n  Very\n  odd.\nHint: Wait.\n"
    as_json = cli("project", "list", "--json")
    assert as_json.status == 4
    assert wire.Problem.model_validate(as_json.json) == wire.Problem(
        code="odd", title="Odd.", detail="Very\nodd.", hint="Wait.", status=503
    )


def test_what_a_platform_says_cannot_play_with_the_terminal(cli: CommandLine, api: FakeApi) -> None:
    title = "\x1b[2J\x1b]0;x\x07gone"
    body = wire.Problem(code="odd", title=title, hint=title, status=422).model_dump_json()
    api.canned["projects"] = Canned(422, body.encode(), "application/problem+json")
    assert cli("project", "list").err == "Error: gone\nHint: gone\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("deployment", "list"), "Did you mean 'deployments'"),
        (("deploy",), "PROJECT"),
        (("deploy", "shop", "--reff", "x"), "--reff"),
        (("deployments", "show", "seven"), "ID"),
        (("deployments", "show", "0"), "ID"),
        (("deployments", "list", "--limit", "9999"), "limit"),
        (("config", "frob"), "frob"),
        (("--frob",), "--frob"),
    ],
)
def test_words_that_are_no_command(cli: CommandLine, api: FakeApi, words: tuple[str, ...], told: str) -> None:
    ran = cli(*words)
    assert ran.status == 2
    assert ran.err.startswith("Error: ")
    assert told in ran.err
    assert "--help` shows how." in ran.err
    assert "Traceback" not in ran.err
    assert cli(*words, "--json").json["status"] == 422


def test_help_is_there_for_everything(cli: CommandLine) -> None:
    everything = cli("--help")
    assert everything.status == 0
    assert cli().out == everything.out
    for command in (
        "up",
        "init",
        "project",
        "deploy",
        "deployments",
        "env",
        "config",
        "login",
        "token",
        "audit",
        "schema",
    ):
        assert f"\n  {command} " in everything.out
        ran = cli(command, "-h")
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith(f"Usage: branchline {command} ")
    assert cli("config").status == 0
    assert cli("config").out.startswith("Usage: branchline config ")


def test_every_command_is_documented(cli: CommandLine) -> None:
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text()
    documented = re.findall(r"`([a-z]+(?: [a-z]+)?)(?=[ `])", page)
    names = [line.split()[0] for line in cli("--help").out.partition("Commands:\n")[2].splitlines() if line[2:3] != " "]
    for name in names:
        inner = cli(name, "--help").out.partition("Commands:\n")[2].splitlines()
        for one in [f"{name} {line.split()[0]}" for line in inner if line[2:3] != " "] or [name]:
            assert one in documented, one


def test_the_version(cli: CommandLine) -> None:
    assert cli("--version").out == f"branchline {__version__}\n"


def test_a_fault_of_our_own_is_told_in_words(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("branchline.cli.access.facts", faulty)
    ran = cli("whoami")
    assert ran.status == 4
    assert ran.err.startswith("Error: The command line itself failed: ZeroDivisionError: by zero")
    assert "Traceback" not in ran.err
    monkeypatch.setenv("BRANCHLINE_DEBUG", "1")
    assert "Traceback" in cli("whoami").err
