"""Requests and answers of the HTTP API about people and tokens, shared by server and CLI. See `wire.py`."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from branchline.domain.access import Permission, Role
from branchline.domain.names import LONGEST_LABEL
from branchline.message import Text, Wire

LONGEST_NAME = LONGEST_LABEL


class WhoAmI(Wire):
    name: str
    role: Role | None = Field(description="The role everywhere; none where there are only roles in projects.")
    roles: dict[str, Role] = Field({}, description="The role in each project, `*` standing for all of them.")
    proof: str = Field(description="How the caller is known.")
    until: datetime | None = Field(None, description="When the caller's token expires.")
    projects: list[str] | None = Field(None, description="What the token is narrowed to.")
    permissions: list[Permission] | None = Field(None, description="What the token is narrowed to.")
    version: str


class NewMember(Wire):
    name: Text = Field(min_length=1, max_length=LONGEST_NAME)
    role: Role
    project: Text | None = Field(None, max_length=400, description="Default: everywhere.")
    email: Text = Field("", max_length=320, description="Whoever logs in with this address for the first time is them.")
    group: bool = Field(False, description="The name is that of a group, as the provider of logins calls it.")


class MemberView(Wire):
    """A person, or a group of people who have a role by that."""

    name: str
    group: bool = False
    roles: dict[str, Role] = Field(description="By project, `*` standing for all of them.")
    email: str = ""
    groups: list[str] = Field([], description="Those of the last login.")
    last_login_at: datetime | None = None


class NewToken(Wire):
    """With a role the token is a machine's; else it is a member's, the caller's own where no other is named."""

    name: Text = Field(min_length=1, max_length=LONGEST_NAME)
    role: Role | None = Field(None, description="What a machine's token may do.")
    member: Text | None = Field(None, max_length=LONGEST_NAME, description="Whose token it is to be.")
    projects: list[Text] | None = Field(None, max_length=500, description="Good in these projects only.")
    permissions: list[Permission] | None = Field(None, description="Good for this only.")
    days: int | None = Field(None, ge=1, le=3650, description="Default: 90 for a person; a machine's does not expire.")


class TokenView(Wire):
    name: str
    member: str | None = Field(None, description="Whose it is; none for a machine's.")
    role: Role | None = Field(None, description="What a machine's may do; a person's may what they may.")
    projects: list[str] | None = Field(None, description="Good in these projects only.")
    permissions: list[Permission] | None = Field(None, description="Good for this only.")
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = Field(None, description="To the minute.")


class TokenShown(TokenView):
    """A new token; `token` is shown this one time."""

    token: str = Field(repr=False)
