"""Requests and answers of the HTTP API about config, shared by server and CLI. See `wire.py` for their addresses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from branchline.domain.deployment import Trigger
from branchline.message import Text, Wire

MAX_KEYS = 2000
BIGGEST_VERSION = 2**31 - 1

ExpectedVersion = Annotated[
    int | None,
    Field(ge=0, le=BIGGEST_VERSION, description="Refuse (409) where the config has another version by now."),
]


class ConfigKeys(Wire):
    project: str
    environment: str
    versions: dict[str, int] = Field(description="The version of each layer, lowest first; the last is its own.")
    keys: dict[str, str] = Field(description="Each key that is set, with the layer that answers for it.")


class ConfigValue(Wire):
    key: str
    value: str
    layer: str
    version: int = Field(description="Of the layer.")

    def __repr__(self) -> str:
        return f"ConfigValue({self.key})"

    __str__ = __repr__


class ConfigValues(Wire):
    """All values of an environment."""

    versions: dict[str, int]
    values: dict[str, str]
    hidden: list[str] = Field([], description="With `own`: the keys that its own layer hides.")

    def __repr__(self) -> str:
        return f"ConfigValues({sorted(self.values)})"

    __str__ = __repr__


class KeyOrigin(Wire):
    """A layer that mentions a key, and who made it do so."""

    layer: str
    hidden: bool = Field(False, description="The layer unsets the key, whatever lies beneath.")
    version: int | None = Field(None, description="The version in which it was last set; unknown where not by us.")
    at: datetime | None = None
    by: str | None = None
    outside: int | None = Field(None, description="A later version that was not written by Branchline: perhaps there.")


class KeyExplanation(Wire):
    key: str
    origin: KeyOrigin
    hides: list[KeyOrigin] = Field([], description="What the layers beneath say, nearest first.")


class ConfigHistory(Wire):
    """One version of a layer."""

    version: int
    at: datetime
    by: str | None = Field(None, description="Unknown where it was not written by Branchline.")
    keys: dict[str, str] = Field({}, description="What became of which key: set, hidden or removed.")
    there: bool = Field(True, description="It can still be read.")


class ConfigDifference(Wire):
    key: str
    what: str = Field(description="`left` or `right`: only there; `differs`; `unknown`: in both, and not comparable.")
    left: str | None = Field(None, description="The layer that answers there.")
    right: str | None = None


class LayerVersion(Wire):
    layer: str
    live: int
    newest: int
    gone: bool = Field(False, description="The live one can no longer be read: nobody can repeat or mend what is live.")


class ConfigStatus(Wire):
    """How the config of what is live stands to the newest."""

    behind: bool = False
    layers: list[LayerVersion] = Field([])
    keys: list[str] = Field([], description="What was changed since.")
    trouble: str = Field("", description="Why it cannot be said.")


class NewConfigValue(Wire):
    value: str
    expected_version: ExpectedVersion = None

    def __repr__(self) -> str:
        return "NewConfigValue(…)"

    __str__ = __repr__


class ConfigChange(Wire):
    """Keys to set, or with null to take out; and keys to hide, whatever the layers beneath say."""

    changes: dict[str, str | None] = Field({}, max_length=MAX_KEYS)
    hidden: list[str] = Field([], max_length=MAX_KEYS)
    expected_version: ExpectedVersion = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.changes and not self.hidden:
            raise ValueError("name at least one key")
        if both := sorted({*self.hidden} & {*self.changes}):
            raise ValueError(f"{both[0]} cannot be both changed and hidden")
        return self

    def __repr__(self) -> str:
        return f"ConfigChange({sorted([*self.changes, *self.hidden])})"

    __str__ = __repr__


class ConfigVersion(Wire):
    """What a change has made of a layer."""

    version: int
    environment_exists: bool = Field(True, description="Else it lies there for an environment that is yet to be.")
    perhaps_meant: str = Field("", description="Where it does not exist: an environment that is called much the same.")


class ConfigApply(Wire):
    trigger: Trigger = Trigger.API
    reason: Text = Field("", max_length=500)
