"""Submodules of a commit: where they lie, which commit they are at, and where that comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from branchline.adapters.git_command import local_path, said, without_user
from branchline.adapters.git_mirror import Mirror
from branchline.domain.errors import BadInput, DeploymentFailed
from branchline.domain.project import check_repository


@dataclass(frozen=True)
class Submodule:
    """A folder of a checkout that is filled from another repository."""

    path: str
    url: str
    commit: str

    @property
    def key(self) -> str:
        """Names the mirror of its repository."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:32]


def submodules(mirror: Mirror, repository: str, commit: str) -> list[Submodule]:
    """What `.gitmodules` of a commit names and the commit holds; raises DeploymentFailed (`submodule_failed`)."""
    settings = _settings(mirror, commit)
    wanted = {
        module["path"]: module.get("url", "")
        for module in settings.values()
        if module.get("path") and module.get("update") != "none"
    }
    if not wanted:
        return []
    listed = mirror.ask("ls-tree", "-z", "--full-tree", commit, "--", *wanted).output.decode("utf-8", "replace")
    found = []
    for entry in listed.split("\0"):
        about, _, path = entry.partition("\t")
        if about.startswith("160000 ") and path in wanted:
            found.append(Submodule(path, _allowed(path, wanted[path], repository), about.split()[2]))
    return found


def _settings(mirror: Mirror, commit: str) -> dict[str, dict[str, str]]:
    """The sections of `.gitmodules` by name."""
    pattern = r"^submodule\..*\.(path|url|update)$"
    answer = mirror.ask("config", f"--blob={commit}:.gitmodules", "--null", "--get-regexp", pattern)
    if answer.exit_code not in {0, 1}:  # 1: nothing of that kind is in there
        raise DeploymentFailed(
            ".gitmodules cannot be read.", code="submodule_failed", hint=f"git said: {said(answer.errors)}"
        )
    sections: dict[str, dict[str, str]] = {}
    for entry in answer.output.decode("utf-8", "replace").split("\0"):
        key, _, value = entry.partition("\n")
        if key:
            name, _, setting = key.removeprefix("submodule.").rpartition(".")
            sections.setdefault(name, {})[setting] = value
    return sections


def _allowed(path: str, given: str, repository: str) -> str:
    """The submodule's absolute address, if it may be fetched.

    Whoever pushes to the project writes `.gitmodules`: it must not open other repositories of this machine, such as
    the mirrors of other projects. Only a project that lies on this machine itself has local submodules, beside it.
    """
    url = absolute(given, repository)
    try:
        check_repository(url)
    except BadInput as error:
        raise _refused(path, given, error.sentence) from None
    if (local := local_path(url)) is not None:
        ours = local_path(repository)
        if ours is None or not local.resolve().is_relative_to(ours.resolve().parent):
            raise _refused(path, given, "Paths of the platform's machine are open only to repositories beside them.")
    return url


def absolute(url: str, base: str) -> str:
    """Resolve a relative address (`../other.git`) as git does, against the address of the repository that names it."""
    if not url.startswith(("./", "../")):
        return url
    base, between = base.rstrip("/"), "/"
    while url.startswith(("./", "../")):
        if url.startswith("../"):
            head, slash, _ = base.rpartition("/")
            if not slash:  # user@host:path
                head, _, _ = base.rpartition(":")
                between = ":"
            base = head
        url = url.partition("/")[2]
    return f"{base}{between}{url}".rstrip("/")


def _refused(path: str, url: str, reason: str) -> DeploymentFailed:
    return DeploymentFailed(
        f"Submodule {path} may not be fetched from {without_user(url)[:200] or 'nowhere'}.",
        code="submodule_failed",
        hint=f"{reason} Mend .gitmodules.",
    )
