"""`member` and `token`: who may do what, and with which tokens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from branchline.cli.arguments import Json
from branchline.cli.client import connect, path
from branchline.cli.lazily import wire_people
from branchline.cli.render import as_json, is_terminal, moment, note, say, table
from branchline.cli.stack import own_settings
from branchline.domain.access import EVERYWHERE, Permission, Role
from branchline.domain.names import check_name

app = typer.Typer()
member = typer.Typer(help="Give people and groups roles, and take them away.", no_args_is_help=True)
token = typer.Typer(help="Make, list and revoke tokens.", no_args_is_help=True)
app.add_typer(member, name="member")
app.add_typer(token, name="token")


def _project(name: str | None) -> str | None:
    return None if name is None else check_name(name, "name of a project")


def _projects(names: list[str] | None) -> list[str] | None:
    return [check_name(name, "name of a project") for name in names] if names else None


MemberName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the person, or of the group with --group.")]
IsGroup = Annotated[bool, typer.Option("--group", help="It is a group, called as the provider of logins calls it.")]
TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]


def in_words(roles: Mapping[str, Role]) -> str:
    """Roles for people: `admin everywhere, developer in shop`."""
    everywhere = [f"{roles[EVERYWHERE]} everywhere"] if EVERYWHERE in roles else []
    others = [f"{role} in {project}" for project, role in sorted(roles.items()) if project != EVERYWHERE]
    return ", ".join(everywhere + others) or "no role"


@member.command("add")
def add_member(
    name: MemberName,
    role: Annotated[Role, typer.Option(help="What they may do.", show_default=False)],
    project: Annotated[str | None, typer.Option(help="Where.", show_default="everywhere", callback=_project)] = None,
    email: Annotated[str, typer.Option(help="Whoever logs in with this address for the first time is them.")] = "",
    group: IsGroup = False,
    json: Json = False,
) -> None:
    """Give a person or a group a role, in a project or everywhere.

    It takes the place of the role that they have there. A person who is not known yet is made.
    """
    asked = {"name": name, "role": role.value, "project": project, "email": email, "group": group}
    with connect() as client:
        made = client.read(client.send("POST", "members", asked), wire_people.MemberView)
    if json:
        as_json(made)
        return
    say(f"{made.name}: {in_words(made.roles)}.")
    if not group and not made.email and made.last_login_at is None:
        note(f"Nobody logs in as {made.name} yet. Whom a provider calls so is taken for somebody else: an admin says")
        note(f"which login is theirs (--email), or makes them a token: `branchline token create TOKEN --for {name}`.")


@member.command("list")
def list_members(
    project: Annotated[str | None, typer.Option(help="Only who has a role there.", callback=_project)] = None,
    json: Json = False,
) -> None:
    """List people and groups with their roles."""
    with connect() as client:
        members = client.get_list("members", wire_people.MemberView, project=project)
    if json:
        as_json(members)
        return
    table(
        ("name", "roles", "e-mail", "last login"),
        [
            (f"group {one.name}" if one.group else one.name, in_words(one.roles), one.email, moment(one.last_login_at))
            for one in members
        ],
    )


@member.command("remove")
def remove_member(
    name: MemberName,
    project: Annotated[str | None, typer.Option(help="Only their role there.", callback=_project)] = None,
    group: IsGroup = False,
) -> None:
    """Take a role in a project away; without --project all of a person's roles and tokens, for good.

    Without --project a group loses the role that it has everywhere.
    """
    with connect() as client:
        client.send("DELETE", path("groups" if group else "members", name), project=project)
    if project:
        say(f"{name} has no role in {project} any more.")
    else:
        say(f"{name} has no role everywhere any more." if group else f"{name} gets in no more.")


@token.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, or which machine.")],
    role: Annotated[Role | None, typer.Option(help="Make a machine's token, which may do this.")] = None,
    member: Annotated[
        str | None, typer.Option("--for", metavar="MEMBER", help="Whose it is.", show_default="your own")
    ] = None,
    project: Annotated[
        list[str] | None, typer.Option(help="Good in this project only. May be repeated.", callback=_projects)
    ] = None,
    permission: Annotated[list[Permission] | None, typer.Option(help="Good for this only. May be repeated.")] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=3650, help="Days until it expires.", show_default="90; a machine's does not expire"),
    ] = None,
    json: Json = False,
) -> None:
    """Make a token. It is shown this one time.

    Your own can what you can, or less. One with --role is a machine's, which only an admin can make.
    """
    asked = {
        "name": name,
        "role": role.value if role else None,
        "member": member,
        "projects": project or None,
        "permissions": [one.value for one in permission] if permission else None,
        "days": days,
    }
    with connect() as client:
        answer = client.send("POST", "tokens", {key: value for key, value in asked.items() if value is not None})
        made = client.read(answer, wire_people.TokenShown)
        where = client.url
    if json:
        as_json(made)
        return
    if is_terminal(sys.stdout):
        until = f", good until {moment(made.expires_at)}" if made.expires_at else ""
        note(f"The token {made.name} of {made.member or f'a {made.role}'}{until}. It is not shown again:")
    say(made.token)
    if is_terminal(sys.stdout):
        note(f"To use it: branchline login {where}")


@token.command("list")
def list_tokens(json: Json = False) -> None:
    """List your tokens, or as an admin all; what they are is not shown."""
    with connect() as client:
        tokens = client.get_list("tokens", wire_people.TokenView)
    if json:
        as_json(tokens)
        return
    table(
        ("name", "of", "narrowed to", "made", "last used", "expires"),
        [
            (
                one.name,
                one.member or f"a machine, {one.role}",
                ", ".join([*(one.projects or []), *(one.permissions or [])]),
                moment(one.created_at),
                moment(one.last_used_at) or "never",
                moment(one.expires_at) or "never",
            )
            for one in tokens
        ],
    )


@token.command()
def revoke(
    name: TokenName,
    member: Annotated[
        str | None, typer.Option("--of", metavar="MEMBER", help="Whose it is.", show_default="yours, or a machine's")
    ] = None,
) -> None:
    """Make a token worthless, at once."""
    with connect() as client:
        client.send("DELETE", path("tokens", name), member=member)
    say(f"The token {name} is revoked.")


@token.command()
def recover() -> None:
    """Get back in on the platform's own machine: make an admin's token where no other is to be had.

    For whoever may read the platform's keys. It takes the place of one that was made so before, and the register tells.
    """
    from branchline.stack.recovery import recover as make  # noqa: PLC0415 half a second that other commands do not need

    file = make(own_settings())
    say(f"You are an admin again: the token is in {file}, where `branchline` finds it on this machine.")
