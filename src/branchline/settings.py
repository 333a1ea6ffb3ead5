"""The platform's own settings: one file, `settings.toml` in the home, and environment variables `BRANCHLINE_…`.

An environment variable wins over the file. A server that is given by URL is external: `branchline up` does not start
it. What the embedded servers chose for themselves at their first start (ports, subnet, passwords) lies beside the file,
in `stack.json` and `keys/`, and comes in through `branchline.layout`.

The supervisor reads the file. The programs that it starts read none: each is given what concerns it, as variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


def default_home() -> Path:
    """`BRANCHLINE_HOME`, else `/var/lib/branchline` for root and a folder of the user's own for others."""
    if home := os.environ.get("BRANCHLINE_HOME"):
        return Path(home).resolve()
    return Path("/var/lib/branchline") if os.geteuid() == 0 else Path.home() / ".local/share/branchline"


class Program(StrEnum):
    """Who is given settings by the supervisor. The values of the runners are their tiers'."""

    SERVER = "server"
    NONPROD = "nonprod"
    PRODUCTION = "production"


def _told(*programs: Program) -> dict[str, Any]:
    """Marks a setting as one that these programs alone are given."""
    return {"told": list(programs)}


SERVER, NONPROD, PRODUCTION = Program
_PREFIX = "BRANCHLINE_"
_FILE = "BRANCHLINE_SETTINGS"
"""Names another settings file than the home's."""

_SYSTEM_CAS = Path("/etc/ssl/certs/ca-certificates.crt")


class Settings(BaseSettings):
    """Everything an operator may set. The defaults make the embedded, one-machine platform.

    Each secret says which programs are `_told`; without that, none is.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)
    _file: ClassVar[Path | None] = None

    home: Path = Field(default_factory=default_home, description="Folder that holds all state.")
    domain: str = Field("localhost", description="Environments answer at ENVIRONMENT-PROJECT.domain.")

    server_listen: str = Field("", description="host:port of the API; default: 127.0.0.1 and a free port from 8700.")
    proxy_listen: str = Field("", description="host:port for traffic; default: a free port from 8080, all interfaces.")
    public_port: int | None = Field(None, description="Port in the URLs of environments, where a proxy is in front.")

    public_url: str = Field("", description="Where browsers reach the server; default: http:// and server_listen.")
    trusted_proxies: str = Field(
        "", description="Addresses and networks of proxies whose X-Forwarded-For counts, separated by commas."
    )
    login_groups: str = Field(
        "",
        description="Groups of which somebody must be in one to log in, separated by commas; default: none.",
    )
    oidc_issuer: str = Field("", description="OpenID Connect provider that people log in with, as it names itself.")
    oidc_client_id: str = Field("", description="What the platform is called there.")
    oidc_client_secret: SecretStr | None = Field(
        None,
        description="Its secret there; default: the file keys/oidc-client.secret, or none (a public client).",
        json_schema_extra=_told(SERVER),
    )
    oidc_scopes: str = Field("openid profile email", description="What the provider is asked to tell.")
    oidc_groups_claim: str = Field("groups", description="Claim that names the groups of whoever logs in.")
    oidc_name_claim: str = Field("preferred_username", description="Claim that names whoever logs in.")
    github_url: str = Field("https://github.com", description="GitHub, or a GitHub Enterprise Server.")
    github_client_id: str = Field("", description="OAuth app that people log in with.")
    github_client_secret: SecretStr | None = Field(
        None, description="Its secret; default: the file keys/github-client.secret.", json_schema_extra=_told(SERVER)
    )

    database_url: SecretStr | None = Field(
        None,
        description="External PostgreSQL for the platform's own tables.",
        json_schema_extra=_told(SERVER, NONPROD, PRODUCTION),
    )
    nonprod_database_url: SecretStr | None = Field(
        None, description="External PostgreSQL for nonprod environments.", json_schema_extra=_told(NONPROD)
    )
    production_database_url: SecretStr | None = Field(
        None, description="External PostgreSQL for production.", json_schema_extra=_told(PRODUCTION)
    )
    database_host: str = Field("", description="Address at which containers reach an external PostgreSQL.")
    vault_url: str = Field("", description="External OpenBao or HashiCorp Vault.")
    registry: str = Field("", description="host[:port][/path] of an external registry.")
    caddy_admin: str = Field("", description="Admin address of an external Caddy that shares our routes folder.")
    docker_host: str = Field(
        "",
        description="Docker endpoint of nonprod; default: DOCKER_HOST or the local socket.",
        json_schema_extra=_told(NONPROD, PRODUCTION),
    )
    production_docker_host: str = Field(
        "",
        description="Docker endpoint of production; default: that of nonprod.",
        json_schema_extra=_told(PRODUCTION),
    )

    build_ca_bundle: Path | None = Field(
        default_factory=lambda: _SYSTEM_CAS if _SYSTEM_CAS.exists() else None,
        description="CA bundle offered to builds as the BuildKit secret `ca`, for networks that inspect TLS; "
        "default: this machine's own.",
    )
    runners: int = Field(1, ge=1, le=32, description="Runners of each tier on this machine; they share the work.")
    deployments_at_once: int = Field(
        4, ge=1, description="Deployments that one runner carries to their switch at a time."
    )
    builds_at_once: int = Field(2, ge=1, description="Builds at a time, of all runners of a tier together.")
    keep_releases: int = Field(
        10, ge=1, description="Releases of each environment whose images are kept, beyond those that are needed."
    )
    keep_logs: int = Field(200, ge=1, description="Deployments of each environment whose logs are kept.")
    keep_logs_days: int = Field(90, ge=1, description="Days for which the log of a deployment is kept at the most.")
    build_cache_mb: int = Field(10_000, ge=10, description="Megabytes (10^6) of Docker's build cache that are kept.")
    housekeeping_every: float = Field(600.0, ge=1, description="Seconds between two rounds of housekeeping.")
    seal_every: float = Field(
        60.0,
        ge=1,
        description="Seconds that a line of the register waits at most for its seal; a deployment's end does not.",
    )
    patience: float = Field(
        120, gt=0, description="Seconds for which a stage tries again while a server beneath it does not answer."
    )
    log_limit: int = Field(20_000_000, ge=10_000, description="Bytes kept of one deployment's log.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over environment variables, these over the file."""
        file = Path(os.environ.get(_FILE) or default_home() / "settings.toml")
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file))

    def variables_for(self, program: Program) -> dict[str, str]:
        """The variables that give a program what concerns it of these settings, and keep it from looking for more."""
        told = {}
        for name in self.model_fields_set - {"home"}:
            value = getattr(self, name)
            if value is not None and program in _programs_told(name):
                told[_PREFIX + name.upper()] = _as_text(value)
        return told | {f"{_PREFIX}HOME": str(self.home), _FILE: os.devnull}


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without anything that is a setting of the platform or a way into it."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(_PREFIX)}


def _programs_told(name: str) -> Collection[str]:
    """Who is given a setting: whom it names; else all, or nobody where it is a secret."""
    field = Settings.model_fields[name]
    if isinstance(field.json_schema_extra, dict) and "told" in field.json_schema_extra:
        return cast("list[str]", field.json_schema_extra["told"])
    return [] if "SecretStr" in str(field.annotation) else list(Program)


def _as_text(value: Any) -> str:
    """A setting as its variable holds it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, (bool, list, dict)) else str(value)
