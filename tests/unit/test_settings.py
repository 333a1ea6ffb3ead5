"""What each program is told of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from branchline.settings import NONPROD, PRODUCTION, SERVER, Program, Settings, without_settings

ALL = {
    "domain": "example.com",
    "runners": 3,
    "patience": 2.5,
    "build_ca_bundle": "/etc/ca.pem",
    "database_url": "postgresql://of-the-platform",
    "nonprod_database_url": "postgresql://of-nonprod",
    "production_database_url": "postgresql://of-production",
    "docker_host": "ssh://nonprod",
    "production_docker_host": "ssh://production",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRANCHLINE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("program", "withheld"),
    [
        (SERVER, {"nonprod_database_url", "production_database_url", "docker_host", "production_docker_host"}),
        (NONPROD, {"production_database_url", "production_docker_host"}),
        (PRODUCTION, {"nonprod_database_url"}),
    ],
)
def test_a_program_is_told_what_concerns_it(program: Program, withheld: set[str]) -> None:
    told = Settings.model_validate(ALL).variables_for(program)
    assert {name.removeprefix("BRANCHLINE_").lower() for name in told} == {*ALL, "home", "settings"} - withheld


def test_what_it_is_told_it_understands_and_looks_for_nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Settings.model_validate({**ALL, "home": home}).variables_for(PRODUCTION)
    (home / "settings.toml").write_text('nonprod_database_url = "postgresql://of-nonprod"\n')
    assert Settings().nonprod_database_url is not None, "the file counts for everybody else"
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    understood = Settings()
    assert understood.production_database_url == SecretStr("postgresql://of-production")
    assert (understood.runners, understood.patience, understood.home) == (3, 2.5, home)
    assert understood.build_ca_bundle == Path("/etc/ca.pem")
    assert understood.nonprod_database_url is None


def test_what_nobody_set_is_not_told() -> None:
    assert Settings().variables_for(SERVER).keys() == {"BRANCHLINE_HOME", "BRANCHLINE_SETTINGS"}


def test_every_secret_says_who_is_told() -> None:
    for name, field in Settings.model_fields.items():
        if "Secret" in str(field.annotation):
            assert isinstance(field.json_schema_extra, dict), f"{name} says nothing, so nobody is told"
            assert field.json_schema_extra["told"]


def test_an_environment_without_settings() -> None:
    given = {"PATH": "/bin", "BRANCHLINE_TOKEN": "x", "branchline_domain": "y", "BRANCH": "z"}
    assert without_settings(given) == {"PATH": "/bin", "BRANCH": "z"}
