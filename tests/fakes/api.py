"""A platform's HTTP API by hand: a small real server in a thread, with its state in plain sight and faults to order."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from branchline import wire, wire_audit, wire_config, wire_logins, wire_people
from branchline.domain.access import Role
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Tier
from branchline.domain.pipeline import StageState

TOKEN = "token-of-the-tests"
OPEN = ("login", "device", "device/token")
START = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMIT = "1a2b3c4d" * 5


@dataclass(frozen=True)
class Pause:
    """The stream says nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class Break:
    """The connection ends; for a while every further request is refused by an answer that is none."""

    refuse: int = 0


@dataclass(frozen=True)
class Sign:
    """A comment, as a sign of life."""


Step = wire.LogEvent | Pause | Break | Sign


@dataclass(frozen=True)
class Canned:
    """An answer that a path gives whatever is asked."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Told:
    """A deployment with its story and how far it was told."""

    view: wire.DeploymentView
    story: list[Step] = field(default_factory=list)
    position: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lines(self) -> list[wire.LogLine]:
        return [step.line for step in self.story if isinstance(step, wire.LogEvent) and step.line]


class Story:
    """Writes the events of a deployment, with times and numbers that run on by themselves."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._seq = 0
        self._at = START

    def stage(
        self,
        name: str,
        state: str = "passed",
        *lines: str,
        note: str = "",
        seconds: float = 0.5,
        around: Step | None = None,
    ) -> Self:
        """A stage that begins, says these lines and ends; `around` comes before its end."""
        began = self._at
        self.steps.append(wire.LogEvent(stage=wire.StageView(name=name, state=StageState.RUNNING, started_at=began)))
        for line in lines:
            self.line(name, line)
        if around:
            self.steps.append(around)
        self._at = began + timedelta(seconds=seconds)
        ended = wire.StageView(
            name=name, state=StageState(state), started_at=began, finished_at=self._at, seconds=seconds, note=note
        )
        self.steps.append(wire.LogEvent(stage=ended))
        return self

    def line(self, stage: str, text: str) -> Self:
        self._seq += 3
        self.steps.append(wire.LogEvent(line=wire.LogLine(seq=self._seq, at=self._at, stage=stage, text=text)))
        return self

    def then(self, *steps: Step) -> Self:
        self.steps += steps
        return self

    def end(self, view: wire.DeploymentView) -> Self:
        self.steps.append(wire.LogEvent(end=view))
        return self


def deployment(id_: int = 1, state: State = State.QUEUED, **more: Any) -> wire.DeploymentView:
    """A deployment of `shop` into `develop`."""
    standard: dict[str, Any] = {
        "project": "shop",
        "environment": "develop",
        "ref": "refs/heads/develop",
        "commit": COMMIT,
        "subject": "Add the till",
        "actor": "anna",
        "trigger": Trigger.CLI,
        "reason": "",
        "requested_at": START,
        "finished_at": START + timedelta(seconds=12.3) if state.final else None,
    }
    return wire.DeploymentView(id=id_, state=state, **(standard | more))


class FakeApi:
    """The server. Every public attribute may be read and changed by a test while it runs."""

    def __init__(self) -> None:
        self.role = Role.ADMIN
        self.tokens: dict[str, wire_people.TokenView] = {}
        self.members: dict[str, wire_people.MemberView] = {}
        self.projects: dict[str, str] = {"shop": "https://git.example.com/shop.git"}
        self.environments: dict[tuple[str, str], wire.EnvironmentView] = {
            ("shop", "develop"): wire.EnvironmentView(
                project="shop", name="develop", tier=Tier.NONPROD, url="http://develop-shop.localhost:8080"
            )
        }
        self.config: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.perhaps_meant = ""
        self.version = 0
        self.deployments: dict[int, Told] = {}
        self.next_story: list[Step] = []
        self.audit: list[wire_audit.AuditLine] = []
        self.canned: dict[str, Canned] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.refusals = 0
        self.devices = False
        self.device_answers: list[str] = []
        self.device_expires_in = 600
        self.logged_out = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, view: wire.DeploymentView, story: Sequence[Step] = ()) -> wire.DeploymentView:
        self.deployments[view.id] = Told(view, list(story))
        return view

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """The status and the message for a request below /api/v1."""
        for pattern, verb, function in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb == method:
                return function(self, query, body, *map(unquote, found.groups()))
        return 404, problem("unknown_path", "There is nothing here.", 404)

    def whoami(self, query: Any, body: Any) -> tuple[int, Any]:
        roles = {"*": self.role}
        return 200, wire_people.WhoAmI(name="anna", role=self.role, roles=roles, proof="token", version="0.1.0")

    def offer_login(self, query: Any, body: Any) -> tuple[int, Any]:
        providers = [wire_logins.LoginMethod(id="oidc", title="id.example.com")] if self.devices else []
        return 200, wire_logins.LoginOffer(providers=providers, device=self.devices)

    def add_device(self, query: Any, body: Any) -> tuple[int, Any]:
        wire_logins.NewDevice.model_validate(body)
        page = f"{self.url}/device"
        return 200, wire_logins.DeviceCodes(
            device_code="kept",
            user_code="BCDF-GHJK",
            verification_uri=page,
            verification_uri_complete=f"{page}?code=BCDF-GHJK",
            expires_in=self.device_expires_in,
            interval=0,
        )

    def poll_device(self, query: Any, body: Any) -> tuple[int, Any]:
        assert wire_logins.DevicePoll.model_validate(body).device_code == "kept"
        code = self.device_answers.pop(0) if self.device_answers else "authorization_pending"
        if code == "token":
            return 200, wire_logins.DeviceToken(name="cli-laptop", token=TOKEN)
        status = {"too_many_attempts": 429, "unreachable": 503}.get(code, 400)
        return status, problem(code, f"This is {code}.", status)

    def log_out(self, query: Any, body: Any) -> tuple[int, Any]:
        self.logged_out += 1
        return 204, None

    def end_sessions(self, query: Any, body: Any) -> tuple[int, Any]:
        return 200, wire_logins.Ended(sessions=3)

    def list_projects(self, query: Any, body: Any) -> tuple[int, Any]:
        return 200, [self.project_view(name) for name in sorted(self.projects)]

    def add_project(self, query: Any, body: Any) -> tuple[int, Any]:
        new = wire.NewProject.model_validate(body)
        if new.name in self.projects:
            return 409, problem("project_exists", f"There is a project {new.name} already.", 409)
        self.projects[new.name] = new.repository
        return 201, self.project_view(new.name)

    def project_view(self, name: str) -> wire.ProjectView:
        of = [environment for (project, _), environment in self.environments.items() if project == name]
        return wire.ProjectView(name=name, repository=self.projects[name], environments=of)

    def show_project(self, query: Any, body: Any, name: str) -> tuple[int, Any]:
        if name not in self.projects:
            return no_project(name)
        return 200, self.project_view(name)

    def list_environments(self, query: Any, body: Any, project: str) -> tuple[int, Any]:
        if project not in self.projects:
            return no_project(project)
        return 200, self.project_view(project).environments

    def show_environment(self, query: Any, body: Any, project: str, name: str) -> tuple[int, Any]:
        if (project, name) not in self.environments:
            return 404, problem("not_found", f"{project} has no environment {name}.", 404)
        return 200, self.environments[project, name]

    def deploy(self, query: Any, body: Any, project: str) -> tuple[int, Any]:
        if project not in self.projects:
            return no_project(project)
        new = wire.NewDeployment.model_validate(body)
        ref = new.ref if new.ref.startswith("refs/") else f"refs/heads/{new.ref}"
        view = deployment(
            len(self.deployments) + 1,
            project=project,
            ref=ref,
            commit=new.commit or COMMIT,
            trigger=new.trigger,
            reason=new.reason,
        )
        return 201, self.add(view, self.next_story)

    def list_deployments(self, query: dict[str, str], body: Any) -> tuple[int, Any]:
        found = [told.view for told in self.deployments.values() if int(query.get("before", 10**9)) > told.view.id]
        for key in ("project", "environment"):
            found = [view for view in found if query.get(key) in {None, getattr(view, key)}]
        found.sort(key=lambda view: -view.id)
        limit = int(query.get("limit", 50))
        more = found[limit - 1].id if len(found) > limit else None
        return 200, wire.Page(items=found[:limit], next=more)

    def show_deployment(self, query: Any, body: Any, id_: str) -> tuple[int, Any]:
        told = self.deployments.get(int(id_))
        return (200, told.view) if told else no_deployment(id_)

    def cancel(self, query: Any, body: Any, id_: str) -> tuple[int, Any]:
        told = self.deployments.get(int(id_))
        if not told:
            return no_deployment(id_)
        told.view = told.view.model_copy(update={"cancel_requested": True})
        return 200, told.view

    def log(self, query: dict[str, str], body: Any, id_: str) -> tuple[int, Any]:
        told = self.deployments.get(int(id_))
        if not told:
            return no_deployment(id_)
        after, limit = int(query.get("after", 0)), int(query.get("limit", 1000))
        return 200, [line for line in told.lines if line.seq > after][:limit]

    def config_keys(self, query: Any, body: Any, project: str, environment: str) -> tuple[int, Any]:
        return 200, wire_config.ConfigKeys(
            project=project,
            environment=environment,
            versions={"_common": 0, environment: self.version},
            keys=dict.fromkeys(sorted(self.config), environment),
        )

    def config_value(self, query: Any, body: Any, project: str, environment: str, key: str) -> tuple[int, Any]:
        if environment == "production":
            return 403, problem("refused", "Nobody reads production's config.", 403, hint="Write it instead.")
        if key not in self.config:
            return 404, problem("not_found", f"{key} is not set.", 404)
        return 200, wire_config.ConfigValue(key=key, value=self.config[key], layer=environment, version=self.version)

    def change_config(self, query: Any, body: Any, project: str, environment: str) -> tuple[int, Any]:
        change = wire_config.ConfigChange.model_validate(body)
        if change.expected_version not in {None, self.version}:
            return 409, problem("config_changed", "Somebody else changed it.", 409)
        self.hidden = (self.hidden - set(change.changes)) | set(change.hidden)
        for key, value in [*change.changes.items(), *((key, None) for key in change.hidden)]:
            self.config.pop(key, None)
            if value is not None:
                self.config[key] = value
        self.version += 1
        there = environment == "_common" or (project, environment) in self.environments
        meant = "" if there else self.perhaps_meant
        return 200, wire_config.ConfigVersion(version=self.version, environment_exists=there, perhaps_meant=meant)

    def config_values(self, query: Any, body: Any, project: str, environment: str) -> tuple[int, Any]:
        hidden = sorted(self.hidden) if query.get("own") == "true" else []
        return 200, wire_config.ConfigValues(versions={environment: self.version}, values=self.config, hidden=hidden)

    def explain_config(self, query: dict[str, str], body: Any, project: str, environment: str) -> tuple[int, Any]:
        mine = wire_config.KeyOrigin(layer=environment, version=self.version, at=START, by="anna")
        beneath = wire_config.KeyOrigin(layer="_common", outside=3)
        hides = mine.model_copy(update={"hidden": True})
        return 200, [
            wire_config.KeyExplanation(key=key, origin=hides if key in self.hidden else mine, hides=[beneath])
            for key in sorted({*self.config, *self.hidden})
            if query.get("key") in {None, key}
        ]

    def config_history(self, query: Any, body: Any, project: str, environment: str) -> tuple[int, Any]:
        keys = {"A": "set", "B": "removed"}
        return 200, [
            wire_config.ConfigHistory(version=2, at=START, by="anna", keys=keys),
            wire_config.ConfigHistory(version=1, at=START, there=False),
        ]

    def config_diff(self, query: Any, body: Any, project: str, environment: str, other: str) -> tuple[int, Any]:
        return 200, [
            wire_config.ConfigDifference(key="A", what="left", left=environment),
            wire_config.ConfigDifference(key="B", what="unknown", left=environment, right=other),
        ]

    def apply_config(self, query: Any, body: Any, project: str, environment: str) -> tuple[int, Any]:
        if not self.deployments:
            return 409, problem("nothing_live", "Nothing is live.", 409)
        return 201, next(iter(self.deployments.values())).view

    def list_tokens(self, query: Any, body: Any) -> tuple[int, Any]:
        return 200, list(self.tokens.values())

    def add_token(self, query: Any, body: Any) -> tuple[int, Any]:
        new = wire_people.NewToken.model_validate(body)
        whose = {} if new.role else {"member": new.member or "anna", "expires_at": START + timedelta(new.days or 90)}
        about = new.model_dump(exclude={"days", "member"}) | {"created_at": START} | whose
        self.tokens[new.name] = wire_people.TokenView(**about)
        return 201, wire_people.TokenShown(**about, token="shown-once")

    def remove_token(self, query: Any, body: Any, name: str) -> tuple[int, Any]:
        if self.tokens.pop(name, None) is None:
            return 404, problem("not_found", f"There is no token {name}.", 404)
        return 204, None

    def list_members(self, query: dict[str, str], body: Any) -> tuple[int, Any]:
        where = query.get("project")
        return 200, [one for one in self.members.values() if where is None or where in one.roles]

    def add_member(self, query: Any, body: Any) -> tuple[int, Any]:
        new = wire_people.NewMember.model_validate(body)
        roles = self.members[new.name].roles if new.name in self.members else {}
        held = {**roles, new.project or "*": new.role}
        self.members[new.name] = wire_people.MemberView(name=new.name, group=new.group, roles=held, email=new.email)
        return 201, self.members[new.name]

    def remove_member(self, query: Any, body: Any, name: str) -> tuple[int, Any]:
        if self.members.pop(name, None) is None:
            return 404, problem("unknown_member", f"There is no member {name}.", 404)
        return 204, None

    def list_audit(self, query: dict[str, str], body: Any) -> tuple[int, Any]:
        return 200, [line for line in self.audit if query.get("project") in {None, line.project}]


def problem(code: str, title: str, status: int, hint: str = "", detail: str = "") -> wire.Problem:
    return wire.Problem(code=code, title=title, status=status, hint=hint, detail=detail)


def no_project(name: str) -> tuple[int, wire.Problem]:
    return 404, problem("not_found", f"There is no project {name}.", 404, hint="`branchline project list`")


def no_deployment(id_: str) -> tuple[int, wire.Problem]:
    return 404, problem("not_found", f"There is no deployment {id_}.", 404)


_ENVIRONMENT = "projects/([^/]+)/environments/([^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("whoami", "GET", FakeApi.whoami),
    ("login", "GET", FakeApi.offer_login),
    ("device", "POST", FakeApi.add_device),
    ("device/token", "POST", FakeApi.poll_device),
    ("logout", "POST", FakeApi.log_out),
    ("sessions", "DELETE", FakeApi.end_sessions),
    ("projects", "GET", FakeApi.list_projects),
    ("projects", "POST", FakeApi.add_project),
    ("projects/([^/]+)", "GET", FakeApi.show_project),
    ("projects/([^/]+)/environments", "GET", FakeApi.list_environments),
    ("projects/([^/]+)/deployments", "POST", FakeApi.deploy),
    (_ENVIRONMENT, "GET", FakeApi.show_environment),
    (f"{_ENVIRONMENT}/config", "GET", FakeApi.config_keys),
    (f"{_ENVIRONMENT}/config", "PATCH", FakeApi.change_config),
    (f"{_ENVIRONMENT}/config/keys/([^/]+)", "GET", FakeApi.config_value),
    (f"{_ENVIRONMENT}/config/values", "GET", FakeApi.config_values),
    (f"{_ENVIRONMENT}/config/explanation", "GET", FakeApi.explain_config),
    (f"{_ENVIRONMENT}/config/history", "GET", FakeApi.config_history),
    (f"{_ENVIRONMENT}/config/diff/([^/]+)", "GET", FakeApi.config_diff),
    (f"{_ENVIRONMENT}/config/apply", "POST", FakeApi.apply_config),
    ("deployments", "GET", FakeApi.list_deployments),
    (r"deployments/(\d+)", "GET", FakeApi.show_deployment),
    (r"deployments/(\d+)/cancel", "POST", FakeApi.cancel),
    (r"deployments/(\d+)/log", "GET", FakeApi.log),
    ("members", "GET", FakeApi.list_members),
    ("members", "POST", FakeApi.add_member),
    ("members/([^/]+)", "DELETE", FakeApi.remove_member),
    ("groups/([^/]+)", "DELETE", FakeApi.remove_member),
    ("tokens", "GET", FakeApi.list_tokens),
    ("tokens", "POST", FakeApi.add_token),
    ("tokens/([^/]+)", "DELETE", FakeApi.remove_token),
    ("audit", "GET", FakeApi.list_audit),
]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: FakeApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at `requests` instead."""

    def _handle(self) -> None:
        api = self.server.api
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/api/v1/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        api.requests.append((self.command, path + (f"?{parts.query}" if parts.query else ""), body))
        if api.refusals:
            api.refusals -= 1
            self._send(502, b"<html>bad gateway</html>", "text/html")
        elif path in api.canned:
            canned = api.canned[path]
            self._send(canned.status, canned.body, canned.content_type, canned.headers)
        elif path in OPEN:
            self._message(*api.answer(self.command, path, query, body))
        elif self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._message(401, problem("unauthenticated", "Nobody knows who is asking.", 401, hint="Send a token."))
        elif (found := re.fullmatch(r"deployments/(\d+)/events", path)) and int(found[1]) in api.deployments:
            self._stream(api.deployments[int(found[1])], int(query.get("after", 0)))
        else:
            self._message(*api.answer(self.command, path, query, body))

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle

    def _message(self, status: int, message: Any) -> None:
        kind = "application/problem+json" if isinstance(message, wire.Problem) else "application/json"
        if isinstance(message, list):
            content = json.dumps([item.model_dump(mode="json") for item in message]).encode()
        else:
            content = message.model_dump_json().encode() if message is not None else b""
        self._send(status, content, kind)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, told: Told, after: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with told.lock:
            stages: dict[str, wire.LogEvent] = {}
            for step in told.story[: told.position]:
                if isinstance(step, wire.LogEvent) and step.stage:
                    stages[step.stage.name] = step
            for event in stages.values():
                self._event(event)
            for step in told.story[: told.position]:
                if isinstance(step, wire.LogEvent) and ((step.line and step.line.seq > after) or step.end):
                    self._event(step)
            while told.position < len(told.story):
                step = told.story[told.position]
                told.position += 1
                if isinstance(step, Break):
                    self.server.api.refusals = step.refuse
                    return
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                elif isinstance(step, Sign):
                    self.wfile.write(b": still here\n\n")
                else:
                    self._event(step)

    def _event(self, event: wire.LogEvent) -> None:
        text = f"id: {event.line.seq}\n" if event.line else ""
        self.wfile.write(f"{text}data: {event.model_dump_json(exclude_none=True)}\n\n".encode())
        self.wfile.flush()
