"""The first start of a platform: its folder, its keys, and the choices that must not change later."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import secrets
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import branchline
from branchline.domain.environment import Tier
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.layout import Layout, Ports
from branchline.stack import files, key_files, seal_keys, server_account
from branchline.stack.key_files import SECRETS, SIGNING_KEYS
from branchline.stack.ports import PREFERRED_PORTS, choose_ports
from branchline.stack.process import OWN_SERVER_USER, SERVER_USER, User, own_server_user, server_user

LONGEST_HOME = 70
"""Characters: a Unix socket's path, which lies in it, may have 107."""


def account() -> User | None:
    """Who the servers run as; raises BadInput (`no_server_user`) where that account must be made first."""
    try:
        return server_user()
    except KeyError:
        raise BadInput(
            f"The account {SERVER_USER}, which the servers run as, does not exist.",
            code="no_server_user",
            hint=f"Run `make setup`, or: useradd --system --no-create-home --shell /usr/sbin/nologin {SERVER_USER}",
        ) from None


def own_server_account() -> User | None:
    """Who our own HTTP server runs as; raises BadInput (`no_own_server_user`) where it must be made first."""
    try:
        return own_server_user()
    except KeyError:
        raise BadInput(
            f"The account {OWN_SERVER_USER}, which Branchline's own HTTP server runs as, does not exist.",
            code="no_own_server_user",
            hint="Run `make setup`, or: useradd --system --user-group --no-create-home "
            f"--home-dir /var/lib/branchline/server --shell /usr/sbin/nologin {OWN_SERVER_USER}",
        ) from None


def establish(home: Path, taken: Iterable[IPv4Network] = (), preferred: Ports = PREFERRED_PORTS) -> Layout:
    """Make the home with its folders and keys, or complete one that a crash left half made; return its layout.

    `taken` are networks that the platform must keep away from, besides the machine's own routes.
    Raises BadInput: `home_too_long`, `home_unreachable`, `home_not_writable`, `no_server_user`, `no_own_server_user`,
    `program_unreachable`; PlatformBroke: `no_addresses`, `no_ports`.
    """
    user, own = account(), own_server_account()
    home = home.resolve()
    if len(str(home)) > LONGEST_HOME:
        raise BadInput(
            f"The path of the home is longer than {LONGEST_HOME} characters.",
            code="home_too_long",
            hint="Name a shorter one with BRANCHLINE_HOME: sockets lie in it, and their paths are limited.",
        )
    try:
        _make_folders(home, user)
        _check_programs(own)
        _make_keys(home / "keys", user)
        _keep_settings_private(home / "settings.toml")
    except PermissionError as error:
        raise BadInput(
            f"This user may not write {error.filename or home}.",
            code="home_not_writable",
            hint="Name a home of your own with BRANCHLINE_HOME, or run this as the user that the platform belongs to.",
        ) from None
    if (home / "stack.json").exists():
        return Layout.load(home)
    layout = Layout(home, instance_name(home), choose_subnet(home, [*taken, *routes()]), choose_ports(preferred))
    layout.save()
    return layout


def instance_name(home: Path) -> str:
    """What everything of this home is called in Docker: short, the same at every start, another for another home."""
    return "bl" + hashlib.sha256(str(home).encode()).hexdigest()[:6]


def choose_subnet(home: Path, taken: Iterable[IPv4Network]) -> IPv4Network:
    """A /16 that overlaps nothing; the search starts where the home's name says, so that two homes rarely race."""
    avoided = list(taken)
    start = int(hashlib.sha256(str(home).encode()).hexdigest(), 16)
    for step in range(54):
        subnet = IPv4Network(f"10.{201 + (start + step) % 54}.0.0/16")
        if not any(subnet.overlaps(other) for other in avoided):
            return subnet
    raise PlatformBroke(
        "No range of addresses is free for the platform's networks.",
        code="no_addresses",
        hint="It needs one of 10.201.0.0/16 to 10.254.0.0/16; see `ip route` and `docker network ls`.",
    )


def routes() -> Iterator[IPv4Network]:
    """The networks that this machine knows a way to, without the default route."""
    try:
        told = subprocess.run(
            ["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return
    for route in json.loads(told.stdout or "[]"):
        if (destination := route.get("dst", "default")) != "default":
            yield ipaddress.IPv4Network(destination, strict=False)


def _make_folders(home: Path, user: User | None) -> None:
    files.folder(home)
    _check_reachable(home, user)
    for name in ("keys", "run", "log", "postgres", "caddy", "git"):
        files.folder(home / name)
    for name in ("run/parts", "work", *(f"git/{tier}" for tier in Tier)):
        files.folder(home / name, mode=0o700)
    files.folder(home / "bin", mode=0o755)
    files.folder(home / "caddy" / "routes", mode=0o755)
    for name in ("openbao", "registry", "caddy/storage", "run/caddy", "log/caddy"):
        files.folder(home / name, user=user, mode=0o700)


def _check_reachable(home: Path, user: User | None) -> None:
    if user is None:
        return
    for parent in home.parents:
        if not parent.stat().st_mode & 0o001:
            raise BadInput(
                f"The account {user.name} cannot pass through {parent} to reach the home.",
                code="home_unreachable",
                hint="Name a home elsewhere with BRANCHLINE_HOME, such as /var/lib/branchline.",
            )


def _check_programs(user: User | None) -> None:
    """The server is forked with what it needs, but goes on to read modules, pages and tables' changes."""
    if user is None:
        return
    for path in (Path(branchline.__file__), Path(sysconfig.get_path("purelib")), Path(os.__file__)):
        if closed := server_account.closed_to(user, path):
            raise BadInput(
                f"The account {user.name} cannot read {path}"
                + (f": it may not pass through {closed}." if closed != path else "."),
                code="program_unreachable",
                hint="Run `make setup`, or put Branchline and its Python where everybody may read them, such as /opt"
                + (f", or: setfacl -m u:{user.name}:x {closed}" if closed != path else "."),
            )


def _keep_settings_private(file: Path) -> None:
    """They may hold passwords. What the server needs of them it is told."""
    if file.is_file() and not file.is_symlink() and file.stat().st_mode & 0o077:
        file.chmod(0o600)


def _make_keys(keys: Path, user: User | None) -> None:
    for name in SIGNING_KEYS:
        if not (keys / f"{name}.pub").exists():
            make_key_pair(keys / f"{name}.pem", keys / f"{name}.pub")
    for name in SECRETS:
        if not (keys / name).exists():
            files.write(keys / name, secrets.token_urlsafe(32) + "\n")
    if not seal_keys.in_use(keys):
        seal_keys.make(keys, user)
    key_files.keep_private(keys)


def make_key_pair(private: Path, public: Path, user: User | None = None) -> None:
    """Make a key to sign with, for `user` (None: ourselves), and its public half, or the half that a crash left out."""
    from joserfc.jwk import ECKey  # noqa: PLC0415 a fifth of a second that only the first start needs

    if not private.exists():
        files.write(private, ECKey.generate_key("P-256").as_pem(private=True), user=user)
    files.write(public, ECKey.import_key(private.read_text()).as_pem(private=False), mode=0o644)
