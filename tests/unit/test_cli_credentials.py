"""Where the command line finds the platform and the token, and in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchline.cli.credentials import Access, check_url, find, store
from branchline.domain import addresses
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, BranchlineError, PlatformBroke, Unauthenticated

STORED = Access("https://stored.example", Secret("stored"))
PORTS = ("server", "proxy", "registry", "openbao", "openbao_cluster")


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """A user's environment without anything in it."""
    return {"HOME": str(tmp_path / "user"), "BRANCHLINE_HOME": ""}


def platform(home: Path, *, server: int = 8701, settings: str = "") -> Path:
    home.mkdir(parents=True)
    ports = dict.fromkeys(PORTS, 1000) | {f"postgres_{name}": 1 for name in ("platform", "nonprod", "production")}
    stack = {"instance": "t", "subnet": "10.9.0.0/16", "ports": ports | {"server": server}}
    (home / "stack.json").write_text(json.dumps(stack))
    (home / "admin.token").write_text("of-the-admin\n")
    if settings:
        (home / "settings.toml").write_text(settings)
    return home


def found(environ: dict[str, str]) -> tuple[str, str]:
    access = find(environ)
    return access.url, access.token.reveal()


def test_the_environment_wins(user: dict[str, str]) -> None:
    store(STORED, user)
    given = user | {"BRANCHLINE_URL": "http://given.example:1/", "BRANCHLINE_TOKEN": " given\n"}
    assert found(given) == ("http://given.example:1", "given")
    assert found(user | {"BRANCHLINE_TOKEN": "given"}) == ("https://stored.example", "given")
    assert found(user | {"BRANCHLINE_URL": "https://stored.example/"}) == ("https://stored.example", "stored")


def test_a_token_is_not_sent_to_another_platform(user: dict[str, str]) -> None:
    store(STORED, user)
    with pytest.raises(Unauthenticated) as caught:
        find(user | {"BRANCHLINE_URL": "https://other.example"})
    assert "branchline login https://other.example" in caught.value.hint


def test_what_login_stored_is_found_and_private(user: dict[str, str]) -> None:
    file = store(STORED, user)
    assert file == Path(user["HOME"]) / ".config/branchline/credentials.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert found(user) == ("https://stored.example", "stored")
    store(Access("https://newer.example", Secret("newer")), user)
    assert found(user) == ("https://newer.example", "newer")
    assert [entry.name for entry in file.parent.iterdir()] == ["credentials.json"]


def test_the_folder_for_configuration_may_be_elsewhere(user: dict[str, str], tmp_path: Path) -> None:
    file = store(STORED, user | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert file == tmp_path / "xdg/branchline/credentials.json"


def test_this_machines_own_platform_is_found(user: dict[str, str], tmp_path: Path) -> None:
    home = platform(tmp_path / "home")
    assert found(user | {"BRANCHLINE_HOME": str(home)}) == ("http://127.0.0.1:8701", "of-the-admin")


def test_a_home_that_is_named_comes_before_the_login(user: dict[str, str], tmp_path: Path) -> None:
    store(STORED, user)
    home = platform(tmp_path / "home")
    assert found(user | {"BRANCHLINE_HOME": str(home)})[0] == "http://127.0.0.1:8701"
    assert found(user | {"BRANCHLINE_HOME": str(tmp_path / "none")})[0] == "https://stored.example"


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("[::]:9000", "http://127.0.0.1:9000"),
        ("10.1.2.3:9000", "http://10.1.2.3:9000"),
    ],
)
def test_the_place_where_the_server_was_told_to_listen(
    user: dict[str, str], tmp_path: Path, listen: str, url: str
) -> None:
    home = platform(tmp_path / "home", settings=f'server_listen = "{listen}"\n')
    assert found(user | {"BRANCHLINE_HOME": str(home)})[0] == url


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"instance": 1}', '{"ports": {}}', "\x00"])
def test_a_damaged_home_is_no_platform(user: dict[str, str], tmp_path: Path, damage: str) -> None:
    home = platform(tmp_path / "home")
    (home / "stack.json").write_text(damage)
    with pytest.raises(Unauthenticated):
        find(user | {"BRANCHLINE_HOME": str(home)})


def test_nobody_logged_in(user: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated) as caught:
        find(user | {"BRANCHLINE_HOME": str(tmp_path / "none")})
    assert (caught.value.code, caught.value.exit_status) == ("not_logged_in", 3)


@pytest.mark.parametrize("damage", ["", "[]", '{"url": 3, "token": 4}', '{"url": "https://x"}', "\xff"])
def test_a_damaged_login_says_what_to_do(user: dict[str, str], damage: str) -> None:
    store(STORED, user).write_bytes(damage.encode("latin-1"))
    with pytest.raises(BranchlineError) as caught:
        find(user)
    assert "branchline login" in caught.value.hint


def test_a_login_that_cannot_be_stored(user: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "user").write_text("a file where a folder should be")
    with pytest.raises(PlatformBroke) as caught:
        store(STORED, user)
    assert caught.value.code == "credentials_unwritable"
    assert "stored" not in str(caught.value).replace("credentials.json", "")


@pytest.mark.parametrize(
    "url", ["", "example.com", "ftp://x", "http://", "http://a b", "http://u:p@x", "http://x:99999", "javascript:1"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_url(url)
    assert caught.value.code == "bad_url"


def test_access_does_not_print_its_token() -> None:
    assert "stored" not in repr(STORED).replace("stored.example", "")
    assert addresses.on_this_machine("http://localhost:1")
    assert not addresses.on_this_machine("http://localhost.example")
