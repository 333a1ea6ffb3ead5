"""Fake of Source: repositories in memory, that tests commit to as people push."""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from branchline.domain.changes import MOST_COMMITS, CodeChanges, Commit, Commits, FileChange
from branchline.domain.environment import BRANCH, TAG, short
from branchline.domain.errors import BadInput, DeploymentFailed, PlatformBroke
from branchline.ports import Interrupt, Log, Revision


@dataclass(frozen=True)
class Link:
    """A symbolic link in a commit."""

    target: str


@dataclass(frozen=True)
class Module:
    """A submodule in a commit; `url` as `.gitmodules` has it, relative or whole."""

    url: str
    commit: str


Content = str | bytes | Link | Module
Files = Mapping[str, Content]


@dataclass(frozen=True)
class _Commit:
    subject: str
    files: Files
    parent: str | None
    author: str = "A B"


@dataclass
class FakeRepository:
    """A hosted repository. `trouble` is how it answers when it does not: `unreachable`, `refused` or nothing."""

    url: str
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, _Commit] = field(default_factory=dict)
    trouble: str = ""

    def commit(self, branch: str, files: Files | None = None, subject: str = "A change") -> str:
        """Push a commit with exactly these files to a branch; return its id."""
        parent = self.branches.get(branch)
        made = _Commit(subject, files if files is not None else {"file": f"{len(self.commits)}\n"}, parent)
        name = hashlib.sha1(f"{self.url} {len(self.commits)} {made}".encode()).hexdigest()
        self.commits[name] = made
        self.branches[branch] = name
        return name

    def tag(self, name: str, commit: str, annotated: bool = False) -> None:
        """Push a tag, or move it."""
        self.tags[name] = commit

    def point(self, branch: str, commit: str | None) -> None:
        """Force-push a branch to a commit that was there before; None deletes it."""
        if commit is None:
            del self.branches[branch]
        else:
            self.branches[branch] = commit

    def is_ancestor(self, commit: str, tip: str | None) -> bool:
        while tip is not None and tip != commit:
            tip = self.commits[tip].parent
        return tip == commit


class FakeSource:
    """Repositories by their address."""

    def __init__(self) -> None:
        self.repositories: dict[str, FakeRepository] = {}
        self.checkouts: list[tuple[str, str]] = []
        self._seen: dict[str, dict[str, _Commit]] = {}

    def host(self, url: str, trouble: str = "") -> FakeRepository:
        """Make a repository that can be resolved and checked out."""
        return self.repositories.setdefault(url, FakeRepository(url, trouble=trouble))

    def resolve(self, project: str, repository: str, ref: str, commit: str | None = None) -> Revision:
        hosted = self._fetch(project, repository)
        names = [ref] if ref.startswith((BRANCH, TAG)) else [BRANCH + ref, TAG + ref]
        refs = {BRANCH + name: tip for name, tip in hosted.branches.items()}
        refs |= {TAG + name: tip for name, tip in hosted.tags.items()}
        full = next((name for name in names if name in refs), None)
        if full is None:
            everything = [*hosted.branches, *hosted.tags]
            near = "".join(f"Did you mean {name}? " for name in difflib.get_close_matches(ref, everything, n=1))
            hint = f"{near}There are: {', '.join(everything)}."
            if not everything:
                hint = "The repository is empty: push a commit first."
            raise BadInput(f"The repository has no branch or tag {ref[:80]!r}.", code="unknown_ref", hint=hint)
        if commit is not None:
            found = [name for name in hosted.commits if name.startswith(commit) and len(commit) >= 7]
            if len(found) != 1 or not hosted.is_ancestor(found[0], refs[full]):
                raise BadInput(
                    f"Commit {commit[:12]} is not part of {short(full)}.", code="unknown_commit", hint="Push."
                )
            return Revision(full, found[0], hosted.commits[found[0]].subject)
        return Revision(full, refs[full], hosted.commits[refs[full]].subject)

    def read(self, project: str, commit: str, path: str) -> str | None:
        seen = self._seen.get(project, {})
        if commit not in seen:
            raise BadInput(f"Commit {commit[:40]} is not known here.", code="unknown_commit", hint="Resolve it first.")
        content = seen[commit].files.get(path)
        while isinstance(content, Link):
            content = seen[commit].files.get(content.target)
        try:
            text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not text in UTF-8.", code="unreadable_file", hint="Save it in UTF-8.") from None
        if not isinstance(text, str):
            return None
        if len(text.encode()) > 1024 * 1024:
            raise BadInput(f"{path} is larger than 1 MiB.", code="unreadable_file", hint="Make it smaller.")
        return text

    def compare(self, project: str, before: str, after: str, endings: tuple[str, ...]) -> CodeChanges:
        seen = self._seen.get(project, {})
        if before not in seen or after not in seen:
            raise PlatformBroke("A commit is not here any more.", code="unknown_commit", hint="Was it force-pushed?")
        old, new = _history(seen, before), _history(seen, after)
        was, now = ({p: c for p, c in seen[one].files.items() if p.endswith(endings)} for one in (before, after))
        files = dict.fromkeys(now.keys() - was.keys(), FileChange.ADDED)
        files |= dict.fromkeys(was.keys() - now.keys(), FileChange.REMOVED)
        files |= {path: FileChange.CHANGED for path in was.keys() & now.keys() if was[path] != now[path]}
        came, went = ([name for name in one if name not in other] for one, other in ((new, old), (old, new)))
        return CodeChanges(_commits(seen, came), _commits(seen, went), files)

    def checkout(self, project: str, repository: str, commit: str, folder: Path, log: Log, stop: Interrupt) -> None:
        stop.check()
        if commit not in self._seen.get(project, {}):
            try:
                self._fetch(project, repository)
            except BadInput as error:
                raise PlatformBroke(error.sentence, hint=error.hint, code=error.code) from None
        if commit not in self._seen[project]:
            gone = f"Commit {commit[:12]} is not in the repository any more."
            raise DeploymentFailed(gone, code="unknown_commit", hint="Deploy what the branch holds now.")
        if folder.exists():
            shutil.rmtree(folder)
        self._write(repository, self._seen[project][commit].files, folder, log)
        self.checkouts.append((project, commit))

    def _fetch(self, project: str, repository: str) -> FakeRepository:
        hosted = self.repositories.get(repository)
        if hosted is None or hosted.trouble == "unreachable":
            hint = "git said: nobody answers."
            raise BadInput(f"{repository} cannot be reached.", code="repository_unreachable", hint=hint)
        if hosted.trouble == "refused":
            hint = "git said: terminal prompts disabled."
            raise BadInput(f"{repository} wants a password.", code="repository_refused", hint=hint)
        self._seen.setdefault(project, {}).update(hosted.commits)
        return hosted

    def _write(self, repository: str, files: Files, folder: Path, log: Log) -> None:
        folder.mkdir(parents=True)
        modules = {path: content for path, content in files.items() if isinstance(content, Module)}
        if modules:
            (folder / ".gitmodules").write_text("".join(f"{path}: {module.url}\n" for path, module in modules.items()))
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                target.symlink_to(content.target)
            elif isinstance(content, Module):
                self._write_module(path, content, repository, target, log)
            else:
                target.write_bytes(content.encode() if isinstance(content, str) else content)

    def _write_module(self, path: str, module: Module, repository: str, folder: Path, log: Log) -> None:
        beside = repository.rpartition("/")[0] + "/"
        url = posixpath.normpath(f"{repository}/{module.url}") if module.url.startswith("../") else module.url
        hosted = self.repositories.get(url)
        allowed = hosted is not None and (not url.startswith("/") or posixpath.normpath(url).startswith(beside))
        if hosted is None or not allowed or module.commit not in hosted.commits:
            raise DeploymentFailed(f"Submodule {path} cannot be had.", code="submodule_failed", hint="See .gitmodules.")
        log.write(f"Submodule {path} at {module.commit[:12]}")
        self._write(url, hosted.commits[module.commit].files, folder, log)


def _history(seen: Mapping[str, _Commit], tip: str | None) -> list[str]:
    """A commit and those before it, newest first."""
    names = []
    while tip is not None:
        names.append(tip)
        tip = seen[tip].parent
    return names


def _commits(seen: Mapping[str, _Commit], names: list[str]) -> Commits:
    newest = names[:MOST_COMMITS]
    at = "2030-01-02T03:04:05+00:00"
    return Commits(len(names), tuple(Commit(name, seen[name].author, at, seen[name].subject) for name in newest))
