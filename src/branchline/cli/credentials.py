"""Where the platform is and who is asking: from the environment, a stored login, or this machine's own platform."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from branchline.cli.render import Style, note, paint
from branchline.domain.addresses import on_this_machine, server_address
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, BranchlineError, PlatformBroke, Unauthenticated
from branchline.layout import Layout

ADMIN_TOKEN = "admin.token"  # noqa: S105 the name of a file


@dataclass(frozen=True)
class Access:
    """The address of a platform, and the token that proves who asks there."""

    url: str
    token: Secret


def find(environ: Mapping[str, str] = os.environ) -> Access:
    """The platform to speak to.

    BRANCHLINE_URL and BRANCHLINE_TOKEN win, one by one; then a home that BRANCHLINE_HOME names; then what
    `branchline login` stored; last the platform of this machine, where its files may be read. Raises Unauthenticated
    (`not_logged_in`) when neither says enough.
    """
    url = check_url(environ["BRANCHLINE_URL"]) if environ.get("BRANCHLINE_URL") else None
    token = Secret(environ["BRANCHLINE_TOKEN"].strip()) if environ.get("BRANCHLINE_TOKEN") else None
    if url and token:
        return Access(url, token)
    for known in _known(environ):
        if url in {None, known.url}:
            return Access(known.url, token or known.token)
    if url:
        raise Unauthenticated(
            f"There is no token for {url}.",
            code="not_logged_in",
            hint=f"Run `branchline login {url}`, or set BRANCHLINE_TOKEN.",
        )
    raise Unauthenticated(
        "You are not logged in to a platform.",
        code="not_logged_in",
        hint="Run `branchline login URL`, or set BRANCHLINE_URL and BRANCHLINE_TOKEN. "
        "On a machine of your own, `branchline up` starts a platform.",
    )


def _known(environ: Mapping[str, str]) -> Iterator[Access]:
    """The platforms that are known here, the likelier one first."""
    places = (own_platform, stored) if environ.get("BRANCHLINE_HOME") else (stored, own_platform)
    for place in places:
        if access := place(environ):
            yield access


def check_url(url: str) -> str:
    """Return a platform's address without a slash at its end; raise BadInput (`bad_url`) for anything else."""
    hint = "Write it like https://branchline.example.com or http://127.0.0.1:8700."
    return server_address(url, of="a platform", code="bad_url", hint=hint)


def warn_of_listeners(url: str) -> None:
    """Tell on standard error where a token would travel in the clear."""
    if url.startswith("http:") and not on_this_machine(url):
        note(paint("Warning:", Style.WARNING, sys.stderr) + " without https, others on the way can read the token.")


def credentials_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `branchline login` stores what it was told."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(base) / "branchline" / "credentials.json"


def stored(environ: Mapping[str, str] = os.environ) -> Access | None:
    """What `branchline login` stored; None where nothing is. Raises BadInput where the file is damaged."""
    path = credentials_file(environ)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Access(check_url(str(content["url"])), Secret(str(content["token"])))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, KeyError, TypeError, OSError, BadInput):
        raise BadInput(
            f"{path} cannot be understood.",
            code="bad_credentials_file",
            hint="Run `branchline login` to write it anew.",
        ) from None


def store(access: Access, environ: Mapping[str, str] = os.environ) -> Path:
    """Write the login, for its owner's eyes only and in one move; return the file."""
    path = credentials_file(environ)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": access.url, "token": access.token.reveal()}, file, indent=2)
            file.write("\n")
        partial.replace(path)
    except OSError as error:
        raise PlatformBroke(
            f"{path} cannot be written: {error.strerror}.",
            code="credentials_unwritable",
            hint="Make the folder writable, or use BRANCHLINE_URL and BRANCHLINE_TOKEN instead.",
        ) from None
    return path


def forget(environ: Mapping[str, str] = os.environ) -> Path:
    """Remove what `branchline login` stored; return the file that held it."""
    path = credentials_file(environ)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise PlatformBroke(
            f"{path} cannot be removed: {error.strerror}.",
            code="credentials_unwritable",
            hint="Make the folder writable, or remove it yourself.",
        ) from None
    return path


def own_platform(environ: Mapping[str, str] = os.environ) -> Access | None:
    """The platform whose home is on this machine, where we may read it; None otherwise."""
    home = _home(environ)
    try:
        layout = Layout.load(home)
        token = Secret((home / ADMIN_TOKEN).read_text(encoding="utf-8").strip())
        return Access(_listens_at(home, layout, environ), token)
    except (BranchlineError, OSError, ValueError, KeyError, TypeError):
        return None


def _home(environ: Mapping[str, str]) -> Path:
    # The same rule as settings.default_home, which would cost the import of pydantic.
    if home := environ.get("BRANCHLINE_HOME"):
        return Path(home).resolve()
    if os.geteuid() == 0:
        return Path("/var/lib/branchline")
    return Path(environ.get("HOME") or Path.home()) / ".local/share/branchline"


def _listens_at(home: Path, layout: Layout, environ: Mapping[str, str]) -> str:
    listen = environ.get("BRANCHLINE_SERVER_LISTEN", "")
    settings = home / "settings.toml"
    if not listen and settings.exists():
        listen = str(tomllib.loads(settings.read_text(encoding="utf-8")).get("server_listen", ""))
    host, _, port = listen.rpartition(":")
    if host in {"", "0.0.0.0", "[::]", "*"}:  # noqa: S104 it is read here, not listened on
        host = "127.0.0.1"
    return f"http://{host}:{port or layout.ports.server}"
