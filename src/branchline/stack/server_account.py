"""The HTTP server's own account: what belongs to it, what it is told, and what is taken over from it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from branchline.adapters.git_command import for_git
from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout
from branchline.stack import files
from branchline.stack.key_files import OF_THE_SERVER
from branchline.stack.part import plain_environment
from branchline.stack.process import User

_TOKEN = re.compile(rb"[\x21-\x7e]{1,200}\n")

_LOOK = """\
path=$1; shift
for folder; do [ -x "$folder" ] || { printf %s "$folder"; exit; }; done
[ -r "$path" ] || printf %s "$path"
"""

_GIT_SETTINGS = """\
# What git of Branchline's HTTP server goes by: credential helpers, insteadOf, proxies. Yours to change.
[core]
\tsshCommand = ssh -F "{folder}/.ssh/config"
"""
_SSH_SETTINGS = """\
# What ssh of Branchline's HTTP server goes by when it looks at repositories. Yours to change.
IdentityFile "{folder}/.ssh/id_ed25519"
UserKnownHostsFile "{folder}/.ssh/known_hosts"
Include /etc/ssh/ssh_config
"""


def furnish(layout: Layout, user: User | None) -> None:
    """Make the folders of the server and give it its keys and mirrors; None: it runs as ourselves. May be repeated."""
    if user is not None:
        _hand_over(layout.git("server"), user)
    files.folder(layout.git("server"), user=user, mode=0o700)
    files.folder(layout.first_token.parent, user=user, mode=0o700)
    for name in OF_THE_SERVER:
        if user is not None:
            with suppress(FileNotFoundError):  # there is no server.next.pem most of the time
                _give(layout.home / "keys" / name, user)
    if user is not None:
        _furnish_home(layout.server_home, user)


def _furnish_home(folder: Path, user: User) -> None:
    """Ours to write, the account's to read: what git and ssh do there is not for a server to change that was taken."""
    readable = User("", os.geteuid(), user.gid)
    for place in (folder, folder / ".ssh"):
        files.folder(place, user=readable, mode=0o750)
    for path, text in ((folder / ".gitconfig", _GIT_SETTINGS), (folder / ".ssh" / "config", _SSH_SETTINGS)):
        if not path.exists():
            files.write(path, text.format(folder=folder), user=readable, mode=0o640)


def environment(layout: Layout, user: User) -> dict[str, str]:
    """What the server gets to see of our environment: how to reach the world and git hosts, and nothing else."""
    own = {"HOME": str(layout.server_home), "USER": user.name, "LOGNAME": user.name}
    return plain_environment(for_git(os.environ)) | own


def fetch_first_token(layout: Layout) -> None:
    """Put the first admin's token, which the server has left, into the home, for the operator's eyes alone."""
    with suppress(FileNotFoundError):
        if (token := _read(layout.first_token)) is not None:
            files.write(layout.home / "admin.token", token)
        layout.first_token.unlink()


def closed_to(user: User, path: Path) -> Path | None:
    """The first folder on the way to `path` that this account may not pass, or the path itself where it may not read.

    Needs root; it is asked as the account itself would ask. None: the way is open.
    """
    try:
        told = subprocess.run(
            ["/bin/sh", "-c", _LOOK, "sh", str(path), *map(str, reversed(path.parents))],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise PlatformBroke(f"No program can be run as {user.name}: {error}.", code="account_unusable") from None
    return Path(told) if told else None


def _hand_over(folder: Path, user: User) -> None:
    """Give a whole tree away that a server of root has left; the folder itself last, as that says that it is done.

    Nothing is given once the folder is the account's: it may link there to whatever it likes by then.
    """
    if not folder.exists() or folder.lstat().st_uid == user.uid:
        return
    for place, folders, names in os.walk(folder, topdown=False):
        for name in (*names, *folders):
            os.lchown(Path(place, name), user.uid, user.gid)


def _give(path: Path, user: User) -> None:
    """Make a file in a folder of ours the account's, with nobody else reading it."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchown(handle, user.uid, user.gid)
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def _read(path: Path) -> bytes | None:
    """A token in a file that a stranger may have made; None where that is no file, or no token is in it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        text = os.read(handle, 1000) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    finally:
        os.close(handle)
    return text if _TOKEN.fullmatch(text) else None
