"""The error tree: every failure that a person can cause or meet has a code, a sentence and a hint.

BranchlineError
├── BadInput            the caller's words are off               exit 2, HTTP 422
│   ├── NotFound                                                 exit 2, HTTP 404
│   └── Conflict        it clashes with what is there            exit 2, HTTP 409
├── Refused             the actor may not do this                exit 3, HTTP 403
│   ├── Unauthenticated                                          exit 3, HTTP 401
│   └── TooMany         attempts in too short a time             exit 3, HTTP 429
├── DeploymentFailed    a stage says no: the project's own fault exit 1
└── PlatformBroke       Docker, a database, the network …        exit 4, HTTP 503
"""

from __future__ import annotations


class BranchlineError(Exception):
    """An error with a stable `code`, a `sentence` for people and a `hint` that says what to do."""

    code = "error"
    status = 500
    exit_status = 4

    def __init__(self, sentence: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.sentence


class BadInput(BranchlineError):
    """What was asked for makes no sense; nothing was changed."""

    code = "bad_input"
    status = 422
    exit_status = 2


class NotFound(BadInput):
    """The thing that was named does not exist."""

    code = "not_found"
    status = 404


class Conflict(BadInput):
    """What was asked for clashes with what is already there."""

    code = "conflict"
    status = 409


class Refused(BranchlineError):
    """The actor is known but may not do this."""

    code = "refused"
    status = 403
    exit_status = 3


class Unauthenticated(Refused):
    """Nobody knows who is asking."""

    code = "unauthenticated"
    status = 401


class TooMany(Refused):
    """More attempts in a time than anybody needs; `after` is in how many seconds the next one counts."""

    code = "too_many_attempts"
    status = 429

    def __init__(self, sentence: str, *, after: int, hint: str = "") -> None:
        super().__init__(sentence, hint=hint or f"Try again in {after} s.")
        self.after = after


class DeploymentFailed(BranchlineError):
    """A stage found that this release must not go live: tests failed, never healthy, and the like."""

    code = "deployment_failed"
    status = 409
    exit_status = 1


class Cancelled(DeploymentFailed):
    """Somebody asked to stop."""

    code = "cancelled"


class PlatformBroke(BranchlineError):
    """The platform or a server beneath it failed; the project is not to blame and a retry may help."""

    code = "platform_broke"
    status = 503
    exit_status = 4

    @property
    def passing(self) -> bool:
        """Whether it may pass by itself: a server that does not answer may come back.

        So may the platform's own database that has no room: until then nothing could even be written down.
        """
        return self.code.endswith(("unreachable", "store_full"))


class Unreachable(PlatformBroke):
    """A server did not answer."""

    code = "unreachable"


class TimedOut(PlatformBroke):
    """A wait reached its limit."""

    code = "timed_out"


class TakenOver(PlatformBroke):
    """Another runner carries the deployment on: this one was taken for dead and must not touch it any more."""

    code = "taken_over"
