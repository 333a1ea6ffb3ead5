"""Members: people and groups, and which roles they have where."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from branchline.server.api import ProjectFilter, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire_people import MemberView, NewMember

api = router("/members", "members")
groups_api = router("/groups", "members")


@api.get("", operation_id="members.list", summary="Who has a role in a project, or all members and groups")
def members(actor: CurrentActor, platform: Operations, project: ProjectFilter = None) -> list[MemberView]:
    return list(platform.members.list(actor, project))


@api.post(
    "",
    operation_id="members.add",
    summary="Give a person or a group a role, in a project or everywhere",
    description="A role that they have there already is replaced. A person who is not known yet is made.",
    status_code=201,
)
def add(actor: CurrentActor, platform: Operations, new: NewMember) -> MemberView:
    return platform.members.add(actor, new.name, new.role, new.project, new.email, group=new.group)


@api.delete(
    "/{name}",
    operation_id="members.remove",
    summary="Take a role in a project away; without a project, all of a person's roles and tokens",
    status_code=204,
)
def remove(
    actor: CurrentActor,
    platform: Operations,
    name: Annotated[str, Path(max_length=1000)],
    project: ProjectFilter = None,
) -> None:
    platform.members.remove(actor, name, project)


# apart, and with the rest of the path: a team of GitHub has a slash in its name
@groups_api.delete(
    "/{name:path}",
    operation_id="members.remove.group",
    summary="Take away the role that a group has in a project; without a project, the one that it has everywhere",
    status_code=204,
)
def remove_group(
    actor: CurrentActor,
    platform: Operations,
    name: Annotated[str, Path(max_length=1000)],
    project: ProjectFilter = None,
) -> None:
    platform.members.remove(actor, name, project, group=True)
