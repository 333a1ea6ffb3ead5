"""How git is called: with which environment and settings, and what its complaints mean."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from branchline.adapters.process import Answer, ask
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.ports import Interrupt
from branchline.settings import without_settings

_INHERITED = re.compile(r"GIT_(?!CONFIG_PARAMETERS)(CONFIG_|SSL_|SSH|HTTP_|PROXY_|EXEC_PATH|CURL_)")

# A file of settings instead of `-c` or GIT_CONFIG_COUNT: git takes these from the environment of the `upload-pack` that
# it starts for a repository on this machine, which then finds that somebody else owns it. The user's own settings are
# included first, so that credential helpers and `insteadOf` work; ours win over what would change a checkout.
_SETTINGS = """\
[safe]
\tdirectory = *
[core]
\tautocrlf = false
\teol = lf
\tattributesFile = /dev/null
\thooksPath = /dev/null
\tfsmonitor = false
\tsparseCheckout = false
\tpackedRefsTimeout = 5000
[color]
\tui = false
[fetch]
\tfsckObjects = false
\twriteCommitGraph = false
[gc]
\tautoDetach = false
\tcruftPacks = true
[http]
\tlowSpeedLimit = 1000
\tlowSpeedTime = 30
[submodule]
\trecurse = false
"""

_REFUSED = re.compile(
    r"could not read (?:Username|Password)|Authentication failed|terminal prompts disabled|Permission denied"
    r"|Host key verification failed|returned error: 40[137]|Invalid username or (?:password|token)|access denied"
    r"|Access denied|not authorized|HTTP Basic",
    re.IGNORECASE,
)
_NO_REPOSITORY = re.compile(
    r"does not appear to be a git repository|repository '.*' not found|Repository not found|invalid gitfile"
    r"|is this a git repository|does not exist|project you were looking for",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"unable to access|Could not resolve host|Failed to connect|Connection (?:refused|timed out|reset|closed)"
    r"|Network is unreachable|No route to host|Operation (?:timed out|too slow)|Could not read from remote repository"
    r"|unexpected disconnect|hung up unexpectedly|early EOF|RPC failed|transport '.*' not allowed|mismatched algorithms"
    r"|strange (?:path|host)name"
    r"|invalid (?:server|http) response|kex_exchange",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"^(?!remote:).*(?:No space left on device|Disk quota exceeded)", re.MULTILINE)
_NEXT_TO_NOTHING = 1024 * 1024

_NOISE = re.compile(r"^(?:Please make sure you have|and the repository exists)|^\s*$")


class Git:
    """Calls git with settings of its own, kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "git.config"
        partial = folder / f"git.config.{os.getpid()}.{threading.get_ident()}"
        partial.write_text("".join(_include(path) for path in _users_settings()) + _SETTINGS)
        partial.replace(self._settings)
        self.environment: Mapping[str, str] = self._environment()

    def ask(
        self,
        *words: str,
        timeout: float,
        stdin: bytes | None = None,
        limit: int = 8 * 1024 * 1024,
        keep: Sequence[int] = (),
        stop: Interrupt | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call git; see `process.ask`."""
        environment = {**self.environment, **(variables or {})}
        return ask(
            ["git", *words], timeout=timeout, env=environment, stdin=stdin, limit=limit, keep=keep, stop=stop, cwd=_ROOT
        )

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in without_settings(os.environ).items()
            if not name.startswith("GIT_") or _INHERITED.match(name)  # not GIT_DIR and the like, as hooks have them
        }
        quiet = {
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": str(self._settings),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",  # set but empty: nobody is asked, not even by SSH_ASKPASS
            "GIT_ALLOW_PROTOCOL": "file:https:http:ssh",
            "GIT_OPTIONAL_LOCKS": "0",
        }
        environment = inherited | quiet
        ssh = inherited.get("GIT_SSH_COMMAND")
        if ssh is None and "GIT_SSH" in inherited:
            ssh = shlex.quote(inherited["GIT_SSH"])
        if ssh is None:  # GIT_SSH_COMMAND would win over the user's own setting
            answer = ask(["git", "config", "--get", "core.sshCommand"], timeout=10, env=environment, cwd=_ROOT)
            ssh = answer.output.decode().strip() or "ssh"
        environment["GIT_SSH_COMMAND"] = f"{ssh} -o BatchMode=yes -o ConnectTimeout=10"
        return environment


def for_git(environment: Mapping[str, str]) -> dict[str, str]:
    """What in an environment is for git by its name: how it reaches hosts."""
    return {name: value for name, value in environment.items() if _INHERITED.match(name)}


_ROOT = Path("/")  # in no repository, whatever folder the platform was started in


def _users_settings() -> list[Path]:
    """The files that git would read as the user's settings."""
    if given := os.environ.get("GIT_CONFIG_GLOBAL"):
        return [Path(given)]
    home = os.environ.get("HOME")
    further = os.environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    return [*([Path(further, "git", "config")] if further else []), *([Path(home, ".gitconfig")] if home else [])]


def _include(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'[include]\n\tpath = "{escaped}"\n'


def without_user(text: str) -> str:
    """The text without whoever stands before the `@` of an address: it may be a token."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def said(errors: str) -> str:
    """What git complained about, on one line, fit to be shown."""
    lines = [line.strip() for line in errors.splitlines() if not _NOISE.match(line)]
    text = without_user("; ".join(line.removeprefix("fatal: ").removeprefix("error: ") for line in lines))
    return text if len(text) <= 600 else text[:600] + "…"


def lacks_room(folder: Path, errors: str) -> bool:
    """Whether git's words are about our own disk, rather than the host's. Of files of a commit it does not say why."""
    if _NO_SPACE.search(errors):
        return True
    room = os.statvfs(folder)
    return "unable to write file" in errors and room.f_bavail * room.f_frsize < _NEXT_TO_NOTHING


def no_space(folder: Path) -> PlatformBroke:
    """The error that a full disk means."""
    return PlatformBroke(
        "The platform's disk is full: git could not write.",
        code="no_space",
        hint=f"Make room where {folder} is, then deploy again.",
    )


def local_path(url: str) -> Path | None:
    """The path that git opens for an address on this machine."""
    if url.startswith("/"):
        return Path(url)
    # Git decodes what is escaped, and sees no query and no fragment in an address.
    return Path(unquote(url[len("file://") :])) if url.lower().startswith("file://") else None


def _unreadable(path: Path, errors: str) -> BadInput | None:
    """The error that a repository on this machine means which this process may not read."""
    closed = next((way for way in reversed(path.parents) if way.exists() and not os.access(way, os.X_OK)), None)
    if closed is None:
        parts = [path, *(path / base / name for base in ("", ".git") for name in ("objects", "refs"))]
        shut = any(part.exists() and not os.access(part, os.R_OK | os.X_OK) for part in parts)
        if not shut and "Permission denied" not in errors:
            return None
        closed = path
    who = pwd.getpwuid(os.geteuid()).pw_name
    return BadInput(
        f"The account {who} may not read {path}"
        + (f": it cannot pass through {closed}." if closed != path else " or what is in it."),
        code="repository_unreadable",
        hint="Keep it where that account may read it, or let it, on the platform's machine: "
        + (f"setfacl -m u:{who}:x {closed}" if closed != path else f"setfacl -R -m u:{who}:rX {path}"),
    )


def complaint(repository: str, errors: str) -> BadInput | PlatformBroke:
    """The error that git's words about a repository mean."""
    if (path := local_path(repository)) is not None and (unreadable := _unreadable(path, errors)):
        return unreadable
    shown = without_user(repository)
    hint = f"git said: {said(errors)}" if errors.strip() else "git did not say why."
    if _REFUSED.search(errors):
        return BadInput(
            f"{shown} wants a password or a key that the platform does not have (or there is no such repository).",
            code="repository_refused",
            hint=f"Give the platform's server and runners a deploy key, or a credential helper. {hint}",
        )
    if _NO_REPOSITORY.search(errors):
        return BadInput(f"There is no repository at {shown}.", code="repository_unreachable", hint=hint)
    if _UNREACHABLE.search(errors):
        return BadInput(f"{shown} cannot be reached.", code="repository_unreachable", hint=hint)
    return PlatformBroke(f"git could not fetch {shown}.", code="fetch_failed", hint=hint)
