"""What changed with a deployment, as the HTTP API tells it: names and numbers, never a value."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from branchline.domain.changes import MOST_COMMITS, MOST_MIGRATIONS, FileChange
from branchline.message import Wire


class CommitView(Wire):
    sha: str
    author: str
    at: datetime = Field(description="When it was committed.")
    subject: str


class CommitsView(Wire):
    total: int = 0
    newest: list[CommitView] = Field([], description=f"Newest first, {MOST_COMMITS} at the most.")


class LayerChangesView(Wire):
    """One layer of the config between the version that was live and the one that this deployment pinned."""

    layer: str = Field(description="`_common`, or the name of an environment.")
    before: int
    after: int
    set: list[str] = Field([], description="Keys that it did not have, or hid.")
    changed: list[str] = Field([], description="Keys that have another value.")
    hidden: list[str] = Field([], description="Keys that are hidden, whatever lies beneath.")
    removed: list[str] = Field([], description="Keys that it has no more.")
    unknown: str = Field("", description="Why the keys cannot be told, where they cannot.")


class MigrationView(Wire):
    path: str
    what: FileChange


class ChangesView(Wire):
    """What differs from what was live when the deployment began."""

    since: int | None = Field(None, description="The deployment that was live; null for the first one there.")
    before: str = Field("", description="Its commit.")
    came: CommitsView = Field(CommitsView(), description="Commits that the release before did not have.")
    went: CommitsView = Field(CommitsView(), description="Commits that only the release before had: it went back.")
    migrations_total: int = 0
    migrations: list[MigrationView] = Field(
        [], description=f"Files of database migrations, by path; {MOST_MIGRATIONS} at the most."
    )
    config: list[LayerChangesView] = Field([], description="The layers of the config that differ, lowest first.")
    unknown: str = Field("", description="Why commits and migrations cannot be told, where they cannot.")
    config_unknown: str = Field("", description="The same of the config.")
