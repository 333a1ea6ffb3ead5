"""The installed program as a process of its own, against the real HTTP server around operations in memory."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline import wire, wire_config, wire_people
from branchline.domain.deployment import State
from branchline.domain.pipeline import Stage, StageState
from branchline.server.app import Server
from branchline.server.web import WebServer, bind
from tests.fakes.api import TOKEN, FakeApi, Pause, Story, deployment
from tests.fakes.platform import FakePlatform
from tests.integration.served import eventually, served

PROGRAM = str(Path(sys.executable).with_name("branchline"))
FAILURE = wire.FailureView(code="unhealthy", sentence="web did not answer.", hint="See its output.")


@pytest.fixture
def platform() -> FakePlatform:
    made = FakePlatform()
    made.repositories["shop"] = "/srv/shop.git"
    return made


@pytest.fixture
def url(platform: FakePlatform) -> Iterator[str]:
    with served(platform) as address:
        yield address


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user with nothing configured but the way to programs."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"HOME": str(tmp_path), "BRANCHLINE_HOME": str(tmp_path / "none"), "TERM": "xterm-256color"}


class Person:
    """Runs the program as somebody with a role."""

    def __init__(self, environ: dict[str, str], url: str, token: str = "bl_admin") -> None:
        self.environ = environ | {"BRANCHLINE_URL": url, "BRANCHLINE_TOKEN": token}

    def runs(self, *words: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *words],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            input=given,
            timeout=60,
            check=False,
        )

    def reads(self, *words: str) -> object:
        ran = self.runs(*words, "--json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def starts(self, *words: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [PROGRAM, *words],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


@pytest.fixture
def admin(environ: dict[str, str], url: str) -> Person:
    return Person(environ, url)


def test_every_command_speaks_with_the_real_server(admin: Person, platform: FakePlatform, url: str) -> None:
    assert wire_people.WhoAmI.model_validate(admin.reads("whoami")).name == "admin"
    added = admin.reads("project", "add", "till", "--repo", "/srv/till.git")
    assert wire.ProjectView.model_validate(added).repository == "/srv/till.git"
    assert [one["name"] for one in admin.reads("project", "list")] == ["shop", "till"]  # type: ignore[attr-defined]
    asked = admin.reads("deploy", "shop", "--ref", "develop", "--reason", "ü", "--no-watch")
    assert wire.DeploymentView.model_validate(asked).reason == "ü"
    platform.stage(1, Stage.BUILD, StageState.PASSED, 1.5)
    platform.say(1, "build", *(f"line {number}" for number in range(1200)))
    platform.finish(1, State.SUCCEEDED)
    assert wire.Page.model_validate(admin.reads("deployments", "list", "shop", "--limit", "5")).items[0].live
    assert wire.DeploymentView.model_validate(admin.reads("deployments", "show", "1")).stages[0].seconds == 1.5
    assert len(admin.reads("deployments", "logs", "1")) == 1200  # type: ignore[arg-type]
    assert "succeeded" in admin.runs("deployments", "logs", "1", "--follow").stdout
    assert admin.runs("deployments", "cancel", "1").returncode == 2
    assert [wire.EnvironmentView.model_validate(one).name for one in admin.reads("env", "list", "shop")] == ["develop"]  # type: ignore[attr-defined]
    assert wire.EnvironmentView.model_validate(admin.reads("env", "show", "shop", "develop")).live is not None
    assert admin.runs("env", "open", "shop", "develop").stdout == "http://develop-shop.localhost:8080\n"
    assert (
        wire_config.ConfigVersion.model_validate(admin.reads("config", "set", "shop", "develop", "A=1", "B=2")).version
        == 1
    )
    assert admin.runs("config", "set", "shop", "develop", "C=-", given="from a pipe\n").returncode == 0
    assert admin.runs("config", "get", "shop", "develop", "C").stdout == "from a pipe\n"
    listed = wire_config.ConfigKeys.model_validate(admin.reads("config", "list", "shop", "develop"))
    assert listed.keys == dict.fromkeys(("A", "B", "C"), "develop")
    assert admin.runs("config", "unset", "shop", "develop", "A", "B").returncode == 0
    assert wire_people.TokenShown.model_validate(admin.reads("token", "create", "ci", "--role", "viewer")).token
    assert "ci" in [wire_people.TokenView.model_validate(one).name for one in admin.reads("token", "list")]  # type: ignore[attr-defined]
    assert admin.runs("token", "revoke", "ci").returncode == 0
    assert admin.reads("audit", "list", "--project", "shop") == []
    stored = admin.runs("login", url, given="ignored, as BRANCHLINE_TOKEN is set")
    assert stored.returncode == 0, stored.stderr


def test_refusals_and_mistakes_keep_their_status(environ: dict[str, str], url: str, platform: FakePlatform) -> None:
    viewer = Person(environ, url, "bl_viewer")
    refused = viewer.runs("deploy", "shop", "--ref", "develop", "--json")
    assert refused.returncode == 3
    problem = wire.Problem.model_validate_json(refused.stdout)
    assert (problem.code, problem.status) == ("refused", 403)
    assert problem.hint in refused.stderr
    unknown = Person(environ, url, "who").runs("project", "list")
    assert unknown.returncode == 3
    bad = Person(environ, url).runs("deploy", "shop", "--ref", "develop", "--commit", "HEAD~1")
    assert bad.returncode == 2
    assert "commit" in bad.stderr
    assert Person(environ, url).runs("project", "show", "../../x").returncode == 2
    platform.faults["deployments.request"] = RuntimeError("a fault of the server")
    broken = Person(environ, url).runs("deploy", "shop", "--ref", "develop")
    assert broken.returncode == 4
    assert "Incident" in broken.stderr
    assert "RuntimeError" not in broken.stderr


def test_nobody_there(environ: dict[str, str]) -> None:
    ran = Person(environ, "http://127.0.0.1:9").runs("project", "list")
    assert ran.returncode == 4
    assert ran.stderr == (
        "Error: The platform at http://127.0.0.1:9 does not answer.\n"
        "Hint: Is it running? See `branchline status`, or start it with `branchline up`.\n"
    )


def test_lines_are_shown_within_a_third_of_a_second(admin: Person, platform: FakePlatform) -> None:
    with admin.starts("deploy", "shop", "--ref", "develop", bufsize=1) as running:
        eventually(lambda: 1 in platform.views)
        platform.change(1, state=State.RUNNING)
        platform.stage(1, Stage.BUILD, StageState.RUNNING)
        assert running.stdout is not None
        delays: list[float] = []
        lines = iter(running.stdout)
        for number in range(8):
            time.sleep(0.21)
            said = time.monotonic()
            platform.say(1, "build", f"line {number}")
            next(line for line in lines if f"line {number}" in line)
            delays.append(time.monotonic() - said)
        platform.stage(1, Stage.BUILD, StageState.PASSED, 2)
        platform.finish(1, State.SUCCEEDED)
        rest = running.stdout.read()
    assert running.returncode == 0
    assert "✓ build     2.0 s\n" in rest
    # the first waits for the connection; a busy machine may be late with some of the others
    assert sorted(delays[1:])[3] < 0.3, delays


def test_a_restart_of_the_server_is_lived_through(admin: Person, environ: dict[str, str]) -> None:
    platform = FakePlatform()
    platform.repositories["shop"] = "/srv/shop.git"

    @contextlib.contextmanager
    def serving(listen: str) -> Iterator[str]:
        listener = bind(listen)
        server = WebServer(Server(platform))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()

    with serving("127.0.0.1:0") as address:
        running = Person(environ, f"http://{address}").starts("deploy", "shop", "--ref", "develop")
        eventually(lambda: 1 in platform.views)
        platform.change(1, state=State.RUNNING)
        platform.stage(1, Stage.BUILD, StageState.RUNNING)
        platform.say(1, "build", "line one")
        time.sleep(0.8)
    platform.say(1, "build", "line two")
    time.sleep(0.5)
    with running, serving(address):
        platform.say(1, "build", "line three")
        platform.stage(1, Stage.BUILD, StageState.PASSED, 3)
        platform.finish(1, State.SUCCEEDED)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert [out.count(word) for word in ("line one", "line two", "line three", "✓ build")] == [1, 1, 1, 1]
    assert out.count("The connection was lost") == 1


def test_ctrl_c_leaves_the_deployment_running(admin: Person, platform: FakePlatform) -> None:
    with admin.starts("deploy", "shop", "--ref", "develop") as running:
        eventually(lambda: 1 in platform.views)
        platform.change(1, state=State.RUNNING)
        platform.say(1, "build", "hello")
        assert running.stdout is not None
        next(line for line in running.stdout if "hello" in line)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
    assert running.returncode == 130
    assert err == (
        "\nDeployment 1 goes on without you.\n"
        "  Follow it: branchline deployments logs 1 --follow\n"
        "  Stop it:   branchline deployments cancel 1\n"
    )
    assert platform.views[1].state is State.RUNNING
    assert not platform.views[1].cancel_requested


def test_a_reader_who_leaves_is_no_error(admin: Person, platform: FakePlatform) -> None:
    admin.runs("deploy", "shop", "--ref", "develop", "--no-watch")
    platform.say(1, "build", *("x" * 2000 for _ in range(3000)))
    platform.finish(1, State.SUCCEEDED)
    for words in (("logs", "1"), ("logs", "1", "--follow"), ("logs", "1", "--json")):
        with admin.starts("deployments", *words) as running:
            assert running.stdout is not None
            assert running.stdout.readline()
            running.stdout.close()
            assert running.wait(20) == 141
            assert running.stderr is not None
            assert running.stderr.read() == ""


def test_output_in_a_narrow_encoding(admin: Person, platform: FakePlatform) -> None:
    admin.runs("deploy", "shop", "--ref", "develop", "--no-watch")
    platform.say(1, "build", "käse 🚀")
    platform.finish(1, State.SUCCEEDED)
    ran = admin.runs("deployments", "logs", "1", "-f", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "    k?se ?\n" in ran.stdout
    assert "+ Deployment 1 succeeded" in ran.stdout
    as_json = admin.runs("deployments", "logs", "1", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(as_json.stdout)[0]["text"] == "käse 🚀"


def screen(person: Person, *words: str, act: object = None) -> tuple[int, str]:
    """Run in a terminal of 100 columns; give the exit status and everything that was written to the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(PROGRAM, [PROGRAM, *words], person.environ | {"COLUMNS": "100", "LINES": "30"})
    written = bytearray()
    deadline = time.monotonic() + 30
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                written += os.read(terminal, 65536)
            if callable(act):
                act(terminal, bytes(written))
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), written.decode()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        yield server


def test_the_live_view_in_a_terminal(environ: dict[str, str], api: FakeApi) -> None:
    story = Story().stage("checkout").stage("build", "passed", "one", "[red]two[/red] 日本", around=Pause(1.5))
    story.stage("verify", "failed", note="web did not answer", around=Pause(0.5))
    api.next_story = story.end(deployment(1, State.FAILED, failed_stage="verify", failure=FAILURE)).steps
    status, written = screen(Person(environ, api.url, TOKEN), "deploy", "shop", "--ref", "develop")
    assert status == 1
    frames = set(re.findall(r"([⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏])", written))
    assert len(frames) > 4, "the line at the bottom moves"
    assert "\x1b[?25l" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor comes back"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    for line in (
        "✓ checkout  0.5 s",
        "▸ build",
        "    one",
        "    [red]two[/red] 日本",
        "✗ verify    failed after 0.5 s",
    ):
        assert f"{line}" in plain
    assert "✗ Deployment 1 failed at verify after 12 s: web did not answer." in plain


def test_ctrl_c_in_a_terminal_gives_the_cursor_back(environ: dict[str, str], api: FakeApi) -> None:
    api.next_story = Story().stage("build", "passed", "hello", around=Pause(20)).steps
    pressed: list[bool] = []

    def press(terminal: int, written: bytes) -> None:
        if b"hello" in written and not pressed:
            pressed.append(True)
            os.write(terminal, b"\x03")

    began = time.monotonic()
    status, written = screen(Person(environ, api.url, TOKEN), "deploy", "shop", "--ref", "develop", act=press)
    assert status == 130
    assert time.monotonic() - began < 15
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "Deployment 1 goes on without you." in written


def test_secrets_are_asked_for_without_showing_them(environ: dict[str, str], api: FakeApi) -> None:
    typed: list[bool] = []

    def answer(terminal: int, written: bytes) -> None:
        if b"PASSWORD:" in written and not typed:
            typed.append(True)
            time.sleep(0.2)
            os.write(terminal, b"hunter2\r")

    status, written = screen(
        Person(environ, api.url, TOKEN), "config", "set", "shop", "develop", "PASSWORD", act=answer
    )
    assert status == 0, written
    assert api.config == {"PASSWORD": "hunter2"}
    assert "hunter2" not in written


def test_the_version_loads_next_to_nothing(environ: dict[str, str]) -> None:
    code = "import sys; from branchline.cli.main import main; main(['--version']); print(sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("branchline 0")
    assert not re.search(r"'(typer|rich|httpx|pydantic|branchline\.domain\S*)'", ran.stdout)


def test_a_deployment_is_asked_for_before_anything_heavy_is_loaded(environ: dict[str, str]) -> None:
    code = (
        "import sys; sys.argv = ['branchline', 'deploy', 'shop', '--ref', 'x']\n"
        "from branchline.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: print(sorted(sys.modules))"
    )
    person = Person(environ, "http://127.0.0.1:9")
    ran = subprocess.run([sys.executable, "-c", code], env=person.environ, capture_output=True, text=True, check=True)
    loaded = ran.stdout
    assert "'branchline.cli.deploy'" in loaded
    for heavy in (
        "rich",
        "yaml",
        "fastapi",
        "docker",
        "branchline.cli.projects",
        "branchline.domain.manifest",
        "jinja2",
    ):
        assert f"'{heavy}'" not in loaded, heavy
