"""The files under `keys/`: what is loose about them is told, what we may mend is mended, and nothing shows them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import fields
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout, Ports
from branchline.stack import key_files, seal_keys
from branchline.stack.openbao import OpenBao
from branchline.stack.openbao_rules import fingerprint
from branchline.stack.restart import restart
from tests.fakes.command_line import CommandLine

SECRET = "do-not-show-me"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the first start makes it."""
    made = tmp_path / "home" / "keys"
    made.mkdir(parents=True, mode=0o711)
    for name in [*(f"{signer}.pem" for signer in key_files.SIGNING_KEYS), *key_files.SECRETS]:
        (made / name).write_text(SECRET)
        (made / name).chmod(0o600)
    for signer in key_files.SIGNING_KEYS:
        (made / f"{signer}.pub").write_text("public")
    seal_keys.make(made, None)
    key_files.keep_private(made)
    return made


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A home without keys."""
    for name in ("run/parts", "log", "keys"):
        (tmp_path / name).mkdir(parents=True)
    return Layout(tmp_path, "bltest", IPv4Network("10.201.0.0/16"), Ports(*range(20_000, 20_008)))


def told(folder: Path, *others: Path) -> list[str]:
    return [trouble.text for trouble in key_files.troubles(folder, others)]


def test_nothing_is_loose_at_first(folder: Path) -> None:
    assert told(folder) == []


def test_what_others_may_do_is_told_and_taken_away(folder: Path) -> None:
    for mode in (0o640, 0o604, 0o620, 0o601):
        (folder / "nonprod.pem").chmod(mode)
        assert told(folder) == [f"others may read nonprod.pem (mode {mode:o})"]
        key_files.keep_private(folder)
        assert told(folder) == []
    assert (folder / "nonprod.pub").stat().st_mode & 0o044


def test_credentials_elsewhere_are_looked_at_too(folder: Path, tmp_path: Path) -> None:
    token = tmp_path / "admin.token"
    assert told(folder, token) == []
    token.write_text(SECRET)
    token.chmod(0o644)
    [trouble] = key_files.troubles(folder, [token])
    assert (trouble.text, trouble.hint) == ("others may read admin.token (mode 644)", f"chmod 600 {token}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_servers_keys_may_be_its_accounts_and_no_others(folder: Path) -> None:
    def found() -> list[str]:
        return [trouble.text for trouble in key_files.troubles(folder, own_server_user=54321)]

    for name in ("server.pem", "postgres-platform-app.password"):
        os.chown(folder / name, 54321, -1)
    assert found() == []
    os.chown(folder / "production.pem", 54321, -1)
    assert found() == ["production.pem belongs to 54321"]


def test_a_missing_key_is_told(folder: Path) -> None:
    (folder / "server.pem").unlink()
    (folder / "openbao-seal.key").unlink()
    assert told(folder) == ["openbao-seal.key is missing", "server.pem is missing"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_told(folder: Path) -> None:
    os.chown(folder / "server.pem", 65534, -1)
    assert told(folder) == ["server.pem belongs to nobody"]
    os.chown(folder / "server.pem", 0, -1)
    os.chown(folder / "openbao-seal.key", 4711, -1)
    assert list(key_files.troubles(folder, servers_user=4711)) == []


def test_links_are_told_and_left_alone(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / "server.pem").rename(elsewhere)
    elsewhere.chmod(0o644)
    (folder / "server.pem").symlink_to(elsewhere)
    key_files.keep_private(folder)
    assert elsewhere.stat().st_mode & 0o777 == 0o644
    assert told(folder) == ["server.pem is a link to somewhere else"]
    (tmp_path / "link").symlink_to(folder)
    assert f"{tmp_path / 'link'} is a link to {folder}" in told(tmp_path / "link")


def test_keys_in_a_git_work_tree_are_told(folder: Path) -> None:
    (folder.parent / ".git").mkdir()
    assert told(folder) == [f"they lie in the git work tree {folder.parent}"]


def test_only_a_key_that_can_be_rotated_is_ever_too_old(folder: Path) -> None:
    old = time.time() - (key_files.OLDEST_DAYS + 2) * 86_400
    for name in ("production.pem", "openbao-seal.key", "database-production.key", "registry.secret"):
        os.utime(folder / name, (old, old))
    found = {trouble.text: trouble.hint for trouble in key_files.troubles(folder)}
    assert found == {
        "openbao-seal.key is 367 days old": "branchline keys rotate seal",
        "production.pem is 367 days old": "branchline keys rotate production",
    }


def test_a_rotation_that_has_not_ended_is_told(folder: Path) -> None:
    (folder / "nonprod.next.pub").write_text("public")
    seal_keys.make(folder, None)
    wanted = {
        f"the rotation of {name} has not ended: the old key is good yet": f"branchline keys rotate {name}"
        for name in ("nonprod", "seal")
    }
    assert {trouble.text: trouble.hint for trouble in key_files.troubles(folder)} == wanted
    seal_keys.retire(seal_keys.in_use(folder)[1])
    assert {trouble.text: trouble.hint for trouble in key_files.troubles(folder)} == wanted


def test_keys_that_only_the_embedded_store_needs_are_not_asked_for(folder: Path) -> None:
    old = time.time() - (key_files.OLDEST_DAYS + 2) * 86_400
    os.utime(folder / "operator.pem", (old, old))
    (folder / "openbao-seal.key").unlink()
    assert told(folder) == ["openbao-seal.key is missing", "operator.pem is 367 days old"]
    (folder / "operator.next.pub").write_text("public")
    assert list(key_files.troubles(folder, foreign_store=True)) == []
    [listed] = [key for key in key_files.inventory(folder, foreign_store=True) if key.name == "operator.pem"]
    assert (listed.rotated_as, listed.purpose.rpartition("; ")[2]) == ("", "not in use")


def test_a_key_that_goes_while_it_is_looked_at_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = key_files._secrets(folder)
    monkeypatch.setattr(key_files, "_secrets", lambda _: [*known, folder / "server.next.pem"])
    assert len(key_files.inventory(folder)) == len(known)


def test_the_folder_is_marked_for_backup_programs(folder: Path) -> None:
    tag = folder / "CACHEDIR.TAG"
    assert tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    tag.unlink()
    assert told(folder) == ["CACHEDIR.TAG is missing: backups of the home take the keys along"]


def test_every_key_is_listed_and_none_is_shown(folder: Path) -> None:
    (folder / "nonprod.next.pem").write_text(SECRET)
    seal_keys.make(folder, None)
    listed = {key.name: key for key in key_files.inventory(folder)}
    assert listed["nonprod.pem"].rotated_as == "nonprod"
    assert listed["openbao-seal.2.key"].rotated_as == "seal"
    assert listed["openbao-seal.key"].purpose == "unseals OpenBao; it is being rotated"
    assert listed["nonprod.next.pem"].purpose == "the next nonprod.pem, which is being rotated"
    assert listed["database-nonprod.key"].rotated_as == ""
    assert not {"nonprod.pub", "CACHEDIR.TAG"} & listed.keys()
    assert not any(key.purpose == "unknown" for key in listed.values())
    assert SECRET not in repr(listed)


def test_seal_keys_come_and_go_in_order(folder: Path) -> None:
    first = seal_keys.in_use(folder)[0]
    assert (first.id, first.path.name) == ("first", "openbao-seal.key")
    second = seal_keys.make(folder, None)
    assert [key.id for key in seal_keys.in_use(folder)] == ["2", "first"]
    seal_keys.retire(first)
    assert seal_keys.in_use(folder) == [second]
    seal_keys.reinstate(seal_keys.retired(folder)[0])
    assert seal_keys.in_use(folder) == [second, first]
    first.path.unlink()
    assert seal_keys.make(folder, None).id == "3"
    assert len(second.path.read_bytes()) == 32


def test_openbao_is_configured_with_the_keys_that_there_are(layout: Layout) -> None:
    keys = layout.home / "keys"
    for signer in key_files.SIGNING_KEYS:
        (keys / f"{signer}.pub").write_text(f"public {signer}")
    seal_keys.make(keys, None)
    part = OpenBao(layout, None)
    before = fingerprint(layout)
    part.prepare()
    assert part.is_configured()
    seal_keys.make(keys, None)
    assert not part.is_configured()
    part.prepare()
    seal = (layout.home / "openbao" / "openbao.hcl").read_text().partition('seal "static"')[2].partition("}")[0]
    assert [line.split(" = ")[1] for line in seal.splitlines() if "_id" in line] == ['"2"', '"first"']
    for signer in key_files.SIGNING_KEYS:
        (keys / f"{signer}.next.pub").write_text("public too")
        assert fingerprint(layout) != before
        (keys / f"{signer}.next.pub").unlink()
        assert fingerprint(layout) == before


def test_nothing_is_restarted_where_nobody_would_start_it(layout: Layout) -> None:
    with pytest.raises(PlatformBroke) as refused:
        restart(layout, OpenBao(layout, None))
    assert refused.value.code == "not_running"


def test_the_command_lists_and_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: Path
) -> None:
    cli = CommandLine(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("BRANCHLINE_HOME", str(folder.parent))
    assert cli("keys", "list").status == 4
    (folder.parent / "stack.json").write_text(
        json.dumps(
            {
                "instance": "bltest",
                "subnet": "10.201.0.0/16",
                "ports": dict.fromkeys((one.name for one in fields(Ports)), 1),
            }
        )
    )
    ran = cli("keys", "list")
    assert ran.status == 0
    row = next(line for line in ran.out.splitlines() if line.startswith("production.pem"))
    assert row.split()[1] == "0600"
    assert "0 days" in row
    assert SECRET not in ran.out
    keys = {key["name"]: key for key in cli("keys", "list", "--json").json["keys"]}
    assert keys["server.pem"]["rotated_as"] == "server"
    refused = cli("keys", "rotate", "registry.secret")
    assert refused.status == 2
    assert "server, nonprod, production, operator, seal" in refused.err


def test_not_even_root_rotates_in_the_home_of_somebody_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli = CommandLine(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("BRANCHLINE_HOME", str(folder.parent))
    ports = dict.fromkeys((one.name for one in fields(Ports)), 1)
    (folder.parent / "stack.json").write_text(
        json.dumps({"instance": "bltest", "subnet": "10.201.0.0/16", "ports": ports})
    )
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    before = sorted(folder.iterdir())
    ran = cli("keys", "rotate", "server")
    assert ran.status == 3
    assert "belongs to" in ran.err
    assert sorted(folder.iterdir()) == before
