"""Requests and answers of the HTTP API, shared by server and CLI.

All paths are below `/api/v1`; every request carries `Authorization: Bearer TOKEN`; every error is a Problem.

    GET    /whoami                                                      WhoAmI
    GET    /projects                                                    list[ProjectView]
    POST   /projects                                    NewProject      ProjectView, 201
    GET    /projects/{project}                                          ProjectView
    POST   /projects/{project}/deployments              NewDeployment   DeploymentView, 201
    GET    /projects/{project}/environments                             list[EnvironmentView]
    GET    /projects/{project}/environments/{environment}               EnvironmentView
    GET    …/environments/{environment}/config                          ConfigKeys
    PATCH  …/environments/{environment}/config          ConfigChange    ConfigVersion
    GET    …/environments/{environment}/config/keys/{key}                 ConfigValue
    PUT    …/environments/{environment}/config/keys/{key} NewConfigValue  ConfigVersion
    DELETE …/environments/{environment}/config/keys/{key} ?expected_version=      ConfigVersion
    GET    …/environments/{environment}/config/values   ?own=           ConfigValues
    GET    …/environments/{environment}/config/explanation  ?key=       list[KeyExplanation]
    GET    …/environments/{environment}/config/history  ?key= &limit=   list[ConfigHistory]
    GET    …/environments/{environment}/config/diff/{other}             list[ConfigDifference]
    POST   …/environments/{environment}/config/apply    ConfigApply     DeploymentView, 201
    GET    /deployments              ?project= &environment= &before= &limit=     Page
    GET    /deployments/{id}                                            DeploymentView
    POST   /deployments/{id}/cancel                                     DeploymentView
    GET    /deployments/{id}/log     ?after= &limit=                    list[LogLine]
    GET    /deployments/{id}/log     with `Accept: text/plain`          the whole log as text
    GET    /deployments/{id}/events  ?after= or `Last-Event-ID`         stream of LogEvent
    GET    /members                  ?project=                          list[MemberView]
    POST   /members                                     NewMember       MemberView, 201
    DELETE /members/{name}           ?project= &group=                  204
    GET    /tokens                                                      list[TokenView]
    POST   /tokens                                      NewToken        TokenShown, 201
    DELETE /tokens/{name}            ?member=                           204
    GET    /login                           (open to all)               LoginOffer
    POST   /device                          (open to all) NewDevice     DeviceCodes
    POST   /device/token                    (open to all) DevicePoll    DeviceToken
    POST   /logout                          revokes the token           204
    GET    /sessions                                                    list[SessionView]
    DELETE /sessions                                                    Ended
    DELETE /sessions/{member}                                           Ended
    GET    /audit                    ?project= &environment= &actor= &kind= &since= &until= &text= &before= &limit=
                                                                        list[AuditLine], and `Link`
    GET    /audit/verification                                          stream of VerificationStep, a line each
    GET    /audit/export             ?after=                            the register, as `register_file` writes it
    GET    /audit/keys                                                  list[RegisterKey]

The register's `Link` header (RFC 8288, `rel="next"`) leads to older lines; where there is none, there are no more. A
list may be short, or empty, and yet have one: what no index leads to is looked for in so many rows at a time.

The stream is `text/event-stream`: each `data` is one LogEvent as JSON without an event name; the `id` of a line is its
`seq`; a comment comes every 15 s where nothing happens. It closes after the `end`. A stream that closes without one
is to be asked for again with the last `seq`; the stages are then told once more as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import Field

from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Tier
from branchline.domain.pipeline import StageState
from branchline.message import Text, Wire
from branchline.wire_changes import ChangesView
from branchline.wire_config import ConfigStatus

MAX_REF = 400


class Problem(Wire):
    """Every error, as `application/problem+json` (RFC 9457)."""

    code: str = Field(description="Stable name of the error.")
    title: str = Field(description="What happened, in one sentence.")
    detail: str = Field("", description="More of it, where there is more.")
    hint: str = Field("", description="What to do about it.")
    status: int = Field(description="The HTTP status.")
    incident: str = Field("", description="Where the server itself failed: what to look for in its log.")


class NewProject(Wire):
    name: Text = Field(max_length=400)
    repository: Text = Field(max_length=1000)


class ProjectView(Wire):
    name: str
    repository: str
    environments: list[EnvironmentView] = Field([])


class EnvironmentView(Wire):
    project: str
    name: str
    tier: Tier
    url: str | None = None
    live: DeploymentView | None = None
    running: DeploymentView | None = None
    last: DeploymentView | None = Field(None, description="The newest that ended; not `live` where it failed.")
    queued: int = 0
    config: ConfigStatus | None = Field(None, description="Only where one environment is asked for.")
    trouble: str = Field("", description="What is missing of what is live, and why it cannot be put back.")


class NewDeployment(Wire):
    ref: Text = Field(max_length=MAX_REF, description="Branch, tag or full ref.")
    commit: str | None = Field(None, pattern=r"^[0-9a-f]{7,40}$", description="Default: where the ref points to now.")
    trigger: Trigger = Trigger.API
    reason: Text = Field("", max_length=500)


class FailureView(Wire):
    code: str
    sentence: str
    hint: str = ""


class StageView(Wire):
    name: str
    state: StageState
    started_at: datetime
    finished_at: datetime | None = None
    seconds: float | None = None
    note: str = ""
    attempts: int = Field(1, description="How often it began: once more for each runner that died at it.")


class DeploymentView(Wire):
    """A deployment. What is marked as part of the story comes only where one deployment is asked for."""

    id: int
    project: str
    environment: str
    ref: str
    commit: str
    subject: str = ""
    state: State
    actor: str
    proof: str = Field("", description="How the actor was known.")
    source: str = Field("", description="The network address that the request came from.")
    trigger: Trigger
    reason: str
    requested_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    release: int | None = None
    image: str | None = None
    switched_at: datetime | None = Field(None, description="When traffic was sent to it.")
    undone_at: datetime | None = Field(None, description="When traffic was taken back, because it turned sick.")
    runner: str | None = Field(None, description="Who carries it, or did last.")
    attempts: int = Field(0, description="How many runners carried it, one after the other.")
    replaces: int | None = Field(None, description="The deployment that was live when it began.")
    superseded_by: int | None = None
    cancel_requested: bool = False
    cancelled_by: str | None = Field(None, description="Who was the first to ask that it be cancelled.")
    failed_stage: str | None = None
    failure: FailureView | None = None
    url: str | None = None
    live: bool = False
    config: dict[str, int] | None = Field(None, description="The version of each layer of the config, by its path.")
    stages: list[StageView] = Field([], description="Part of the story: in the order in which they began.")
    outcome: str = Field("", description="Part of the story: what came of it, in one sentence.")
    replaced_by: int | None = Field(None, description="Part of the story: the deployment that took its place.")
    changes: ChangesView | None = Field(
        None, description="Part of the story: what differs from what was live; null before `prepare`."
    )


class Page(Wire):
    """Part of a list, newest first. Pass `next` as `before` for the part that follows."""

    items: list[DeploymentView]
    next: int | None = None


class LogLine(Wire):
    """One line of a deployment's log; `seq` grows without gaps mattering."""

    seq: int
    at: datetime
    stage: str
    text: str


class LogEvent(Wire):
    """What `GET /api/v1/deployments/{id}/events` streams: a `line`, a changed `stage` or, last, the `end`.

    The `end` comes without `changes`: ask for the deployment to get them.
    """

    line: LogLine | None = None
    stage: StageView | None = None
    end: DeploymentView | None = None


@dataclass(frozen=True)
class MetricsView:
    """The platform's numbers, from which `/metrics` is written."""

    deployments: Mapping[tuple[State, Tier], int] = field(default_factory=dict)
    """Every deployment there ever was, by where it stands; the queues are those that are `queued`."""
    stages: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """For each stage: how many ended, and the seconds that they took in all."""


for _model in (ProjectView, EnvironmentView):
    _model.model_rebuild()
