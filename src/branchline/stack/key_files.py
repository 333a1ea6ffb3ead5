"""The files under `keys/`: what each is for, and what is loose about them. Nothing here looks at what is in them."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from branchline.stack import files, seal_keys
from branchline.stack.ledger import not_yours

SIGNING_KEYS = {
    "server": "the server's logins to the config store",
    "nonprod": "logins of nonprod's runners to the config store",
    "production": "logins of production's runners to the config store",
    "operator": "logins to the config store that set it up",
}
SECRETS = {
    "postgres-platform.password": "superuser of the platform's own PostgreSQL",
    "postgres-platform-app.password": "the platform's role in its own PostgreSQL",
    "postgres-nonprod.password": "superuser of nonprod's PostgreSQL",
    "postgres-production.password": "superuser of production's PostgreSQL",
    "database-nonprod.key": "passwords of nonprod's databases are derived from it",
    "database-production.key": "passwords of production's databases are derived from it",
    "registry.secret": "state of uploads to the registry",
}
BROUGHT = {
    "oidc-client.secret": "the platform's secret at the OpenID Connect provider that people log in with",
    "github-client.secret": "the platform's secret at GitHub, with which people log in",
}
"""What an operator puts there, where it is needed."""

OF_THE_SERVER = frozenset({"server.pem", "server.next.pem", "postgres-platform-app.password", *BROUGHT})
"""What the HTTP server reads: it belongs to that server's account, and nothing else here does."""

SEAL = "seal"
EMBEDDED = frozenset({"operator", SEAL})
"""What only the embedded OpenBao needs."""

TAG = "CACHEDIR.TAG"
OLDEST_DAYS = 365
"""A key that can be rotated should not be older."""

_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder holds the keys of a Branchline platform. The line above is what backup programs know a cache by: borg,
# restic and tar leave the folder out when they are told to (--exclude-caches). Whoever has a backup of the rest and
# these keys can read all config, so keep copies of the keys in another place than backups of the rest.
"""


@dataclass(frozen=True)
class KeyFile:
    """One file. `rotated_as` is what `branchline keys rotate` calls it; empty where that does not rotate it."""

    name: str
    mode: str
    owner: str
    made: datetime
    purpose: str
    rotated_as: str = ""

    @property
    def days(self) -> int:
        """Its age."""
        return (datetime.now(UTC) - self.made).days


@dataclass(frozen=True)
class Trouble:
    """Something that is loose, and what to do about it."""

    text: str
    hint: str


def inventory(folder: Path, *, foreign_store: bool = False) -> list[KeyFile]:
    """Every secret under `keys/`, by name; `foreign_store` says that nobody needs those of the embedded OpenBao.

    Raises Refused (`not_your_platform`) where this user may not look.
    """
    found = []
    for path in sorted(_secrets(folder)):
        try:
            status = path.lstat()
        except FileNotFoundError:  # it is being rotated
            continue
        purpose, rotated_as = _purpose(folder, path)
        if foreign_store and rotated_as in EMBEDDED:
            purpose, rotated_as = f"{purpose}; not in use", ""
        made = datetime.fromtimestamp(status.st_mtime, UTC)
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        found.append(KeyFile(path.name, mode, _owner(status.st_uid), made, purpose, rotated_as))
    return found


def keep_private(folder: Path) -> None:
    """Take away whatever others may do with our own keys, and mark the folder for backup programs."""
    for path in _secrets(folder):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            with contextlib.suppress(PermissionError):  # another's, which the doctor tells of
                path.chmod(0o600)
    tag = folder / TAG
    if not tag.exists() or tag.read_text() != _TAG_TEXT:
        files.write(tag, _TAG_TEXT)


def troubles(
    folder: Path,
    others: Collection[Path] = (),
    servers_user: int | None = None,
    own_server_user: int | None = None,
    *,
    foreign_store: bool = False,
) -> Iterator[Trouble]:
    """All that is loose about the keys, and about `others`: files elsewhere that hold credentials.

    `servers_user` is the account that the servers run as, which owns the keys that OpenBao reads, and `own_server_user`
    that of our HTTP server, which owns its own; `foreign_store` says that nobody needs OpenBao's. Raises Refused
    (`not_your_platform`) where this user may not look.
    """
    owners = {0, os.geteuid()} | ({servers_user} if servers_user is not None else set())
    there = {path.name for path in _secrets(folder)}
    expected = {f"{name}.pem" for name in SIGNING_KEYS if not (foreign_store and name in EMBEDDED)} | SECRETS.keys()
    if not foreign_store and not seal_keys.in_use(folder):
        expected.add(seal_keys.FIRST)
    for name in sorted(expected - there):
        yield Trouble(f"{name} is missing", "Restore it from a backup: what it protects depends on it.")
    for path in [*sorted(_secrets(folder)), *filter(Path.exists, others)]:
        its_own = path.parent == folder and path.name in OF_THE_SERVER and own_server_user is not None
        yield from _exposed(path, owners | {own_server_user} if its_own else owners)
    yield from _misplaced(folder)
    for name in _half_rotated(folder) - (EMBEDDED if foreign_store else set()):
        text = f"the rotation of {name} has not ended: the old key is good yet"
        yield Trouble(text, f"branchline keys rotate {name}")
    for key in inventory(folder, foreign_store=foreign_store):
        if key.rotated_as and key.days > OLDEST_DAYS:
            yield Trouble(f"{key.name} is {key.days} days old", f"branchline keys rotate {key.rotated_as}")
    if not (folder / TAG).exists():
        yield Trouble(f"{TAG} is missing: backups of the home take the keys along", "`branchline up` writes it.")


def _exposed(path: Path, owners: Collection[int | None]) -> Iterator[Trouble]:
    if path.is_symlink():
        yield Trouble(f"{path.name} is a link to somewhere else", f"Put the file itself in its place: {path}")
        return
    status = path.lstat()
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        yield Trouble(f"others may read {path.name} (mode {mode:o})", f"chmod 600 {path}")
    if status.st_uid not in owners:
        owner = _owner(status.st_uid)
        yield Trouble(f"{path.name} belongs to {owner}", f"chown it to whoever runs the platform: {path}")


def _misplaced(folder: Path) -> Iterator[Trouble]:
    if folder.is_symlink():
        yield Trouble(f"{folder} is a link to {folder.resolve()}", "Make it a folder of the home's own.")
    if stat.S_IMODE(folder.stat().st_mode) & 0o066:
        yield Trouble("others may look into the folder of the keys", f"chmod 711 {folder}")
    for parent in folder.resolve().parents:
        if (parent / ".git").exists():
            hint = "Move the home out of it, with BRANCHLINE_HOME: one `git add` would publish them."
            yield Trouble(f"they lie in the git work tree {parent}", hint)


def _half_rotated(folder: Path) -> set[str]:
    halves = {name for name in SIGNING_KEYS if (folder / f"{name}.next.pub").exists()}
    return halves | ({SEAL} if len(seal_keys.in_use(folder)) > 1 or seal_keys.retired(folder) else set())


def _secrets(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix != ".pub" and path.name != TAG]
    except PermissionError:
        raise not_yours(folder.parent, folder) from None


def _purpose(folder: Path, path: Path) -> tuple[str, str]:
    name = path.name
    if purpose := SECRETS.get(name) or BROUGHT.get(name):
        return purpose, ""
    if path.suffix == ".pem" and (signer := path.stem) in SIGNING_KEYS:
        return SIGNING_KEYS[signer], signer
    if (signer := name.removesuffix(".next.pem")) in SIGNING_KEYS:
        return f"the next {signer}.pem, which is being rotated", ""
    for place, key in enumerate(seal_keys.in_use(folder)):
        if key.path == path:
            return ("unseals OpenBao", SEAL) if place == 0 else ("unseals OpenBao; it is being rotated", "")
    if any(key.path == path for key in seal_keys.retired(folder)):
        return "unsealed OpenBao; it is being rotated", ""
    return "unknown", ""


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
