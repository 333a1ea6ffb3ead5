"""`branchline audit` as a process of its own: against the real HTTP server, and without any platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from branchline.signatures import to_pem
from branchline.wire_audit import AuditLine, Verification
from tests.fakes.notary import FakeNotary
from tests.fakes.platform import FakePlatform
from tests.integration.served import served

PROGRAM = str(Path(sys.executable).with_name("branchline"))
NOW = datetime.now(UTC)

Run = Callable[..., subprocess.CompletedProcess[str]]


def line(number: int, **more: object) -> AuditLine:
    told = {"kind": "stage.ended", "actor": "ada", "project": "shop", "environment": "develop", "deployment": 3}
    at = NOW - timedelta(hours=100 - number)
    return AuditLine.model_validate({"id": number, "at": at, "detail": {"n": number}, **told, **more})


@pytest.fixture
def platform() -> FakePlatform:
    made = FakePlatform()
    made.repositories["shop"] = "/srv/shop.git"
    for number in range(1, 13):
        made.register.append(line(number, actor="ada" if number % 2 else "bob"))
        if number in {5, 8, 12}:
            made.audit.seal()
    return made


@pytest.fixture
def url(platform: FakePlatform) -> Iterator[str]:
    with served(platform) as address:
        yield address


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    """Runs the program for somebody who knows no platform."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    environ = kept | {"HOME": str(tmp_path / "home"), "BRANCHLINE_HOME": str(tmp_path / "none")}

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *map(str, words)], env=environ | more, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def run(alone: Run, url: str) -> Run:
    """Runs it for the admin of the platform."""
    return lambda *words, **more: alone(*words, **{"BRANCHLINE_URL": url, "BRANCHLINE_TOKEN": "bl_admin"} | more)


@pytest.fixture
def export(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "register.jsonl"
    ran = run("audit", "export", "-o", path)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert "row 12" in ran.stderr
    return path


def ids(ran: subprocess.CompletedProcess[str]) -> list[int]:
    assert ran.returncode == 0, ran.stderr
    return [one["id"] for one in json.loads(ran.stdout)]


def test_list_filters(run: Run) -> None:
    assert ids(run("audit", "list", "--json", "--limit", "3")) == [12, 11, 10]
    assert ids(run("audit", "list", "--json", "--limit", "3", "--before", "10")) == [9, 8, 7]
    assert ids(run("audit", "list", "--json", "--actor", "bob", "--limit", "2")) == [12, 10]
    assert ids(run("audit", "list", "--json", "--kind", "config.changed")) == []
    assert ids(run("audit", "list", "--json", "--project", "shop", "--environment", "staging")) == []
    assert ids(
        run("audit", "list", "--json", "--since", "91h", "--until", (NOW - timedelta(hours=89)).isoformat())
    ) == [10]
    assert ids(run("audit", "list", "--json", "--text", "'n': 7")) == [7]
    shown = run("audit", "list", "--limit", "2")
    assert "There is more: --before 11" in shown.stderr
    assert len(shown.stdout.splitlines()) == 3
    assert "more" not in run("audit", "list").stderr


@pytest.mark.parametrize("when", ["soon", "7y", "2026-13-01", "99999999999d", "-1h", ""])
def test_times_that_make_no_sense(run: Run, when: str) -> None:
    ran = run("audit", "list", f"--since={when}")
    assert ran.returncode == 2
    assert "Hint: " in ran.stderr


def test_the_platform_checks_its_register(run: Run, platform: FakePlatform) -> None:
    ran = run("audit", "verify")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "nothing is wrong with 12 rows and 3 seals" in ran.stdout
    assert f"the head is 12:{platform.audit.links()[-1].hash.hex()}" in ran.stdout
    platform.register[6] = line(7, actor="nobody")
    ran = run("audit", "verify")
    assert ran.returncode == 1
    assert "rows 6 to 8 rewritten: " in ran.stdout
    found = run("audit", "verify", "--json")
    assert found.returncode == 1
    assert [one.row for one in Verification.model_validate_json(found.stdout).faults] == [6]


def test_an_export_is_checked_without_a_platform(
    alone: Run, run: Run, export: Path, tmp_path: Path, platform: FakePlatform
) -> None:
    key = tmp_path / "public.pem"
    key.write_text(run("audit", "keys").stdout)
    ran = alone("audit", "verify", export, "--key", key)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    head = ran.stdout.rsplit(" ", 1)[1].strip()
    assert alone("audit", "verify", export, "--key", key, "--head", head).returncode == 0
    own = alone("audit", "verify", export)
    assert own.returncode == 0
    assert "--key checks against yours" in own.stderr
    other = tmp_path / "other.pem"
    other.write_text(to_pem(FakeNotary().public))
    ran = alone("audit", "verify", export, "--key", other)
    assert ran.returncode == 1
    assert ran.stdout.count(" forged: ") == 3
    row = f"9:{'0' * 64}"
    ran = alone("audit", "verify", export, "--key", key, "--head", row)
    assert ran.returncode == 1
    assert "row 9 rewritten" in ran.stdout
    ran = alone("audit", "verify", export, "--key", key, "--head", f"15:{'0' * 64}")
    assert "rows 13 to 15 truncated" in ran.stdout


def test_a_changed_export_is_found_out(alone: Run, export: Path) -> None:
    lines = export.read_text().splitlines(keepends=True)
    (at,) = [number for number, one in enumerate(lines) if one.startswith('{"row":{"seq":7,')]
    for changed, expected in (
        ([*lines[:at], lines[at].replace('"ada\\"', '"bob\\"'), *lines[at + 1 :]], "row 7 edited"),
        ([*lines[:at], *lines[at + 1 :]], "row 7 deleted"),
        ([*lines[:at], lines[at], *lines[at:]], "row 7 inserted"),
        ([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]], "row 7 reordered"),
        (lines[:at], "row 7 truncated"),
        ([*lines[:at], *lines[-1:]], "rows 7 to 12 truncated"),
    ):
        export.write_text("".join(changed))
        ran = alone("audit", "verify", export)
        assert ran.returncode == 1
        assert expected in ran.stdout


def test_the_documented_check_of_ones_own(export: Path, run: Run, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "register.md").read_text()
    (program,) = [part.partition("```")[0] for part in page.split("```python\n")[1:]]
    key = tmp_path / "public.pem"
    key.write_text(run("audit", "keys").stdout)

    def checked() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", program, str(export), str(key)]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    ran = checked()
    assert (ran.returncode, ran.stdout[:8]) == (0, "12 rows,"), ran.stderr
    export.write_text(export.read_text().replace("bob", "eve", 1))
    assert "AssertionError: row 2" in checked().stderr


def test_nothing_half_is_left_of_an_export(run: Run, platform: FakePlatform, tmp_path: Path) -> None:
    platform.torn = True
    target = tmp_path / "x" / "register.jsonl"
    target.parent.mkdir()
    ran = run("audit", "export", "-o", target)
    assert ran.returncode == 4
    assert "did not end its export" in ran.stderr
    assert [*target.parent.iterdir()] == []
    ran = run("audit", "export")
    assert ran.returncode == 4
    assert len(ran.stdout.splitlines()) == 16
    ran = run("audit", "export", "-o", tmp_path / "missing" / "register.jsonl")
    assert (ran.returncode, "cannot be written" in ran.stderr) == (2, True)


def test_an_archive_goes_on_where_it_ended(run: Run, alone: Run, platform: FakePlatform, tmp_path: Path) -> None:
    folder = tmp_path / "archive"

    def segments() -> list[str]:
        return sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))

    first = run("audit", "archive", folder, "--rows", "6")
    assert first.returncode == 0, first.stderr
    names = ["register-000000000001-000000000008.jsonl", "register-000000000009-000000000012.jsonl"]
    assert first.stdout.split() == names == segments()
    assert run("audit", "archive", folder).stdout == ""
    for number in (13, 14, 15, 16):
        platform.register.append(line(number))
        if number == 15:
            platform.audit.seal()
    (folder / "segment.partial").write_text("what a killed run left")
    again = run("audit", "archive", folder)
    assert again.stdout.split() == ["register-000000000013-000000000015.jsonl"]
    assert "up to row 15" in again.stderr
    ran = alone("audit", "verify", folder)
    assert ran.returncode == 0, ran.stdout
    assert "15 rows and 4 seals" in ran.stdout
    assert all(alone("audit", "verify", folder / name).returncode == 0 for name in segments())
    platform.register[14] = line(15, actor="nobody")
    ran = run("audit", "archive", folder)
    assert ran.returncode == 2
    assert "Row 15 of the register is not what the archive" in ran.stderr
    path = folder / names[1]
    path.write_text(path.read_text().replace("bob", "eve", 1))
    ran = alone("audit", "verify", folder)
    assert ran.returncode == 1
    assert "row 10 edited" in ran.stdout
    path.unlink()
    assert "rows 9 to 12 deleted" in alone("audit", "verify", folder).stdout
    newest = folder / "register-000000000013-000000000015.jsonl"
    newest.write_bytes(newest.read_bytes()[:-9])
    ran = run("audit", "archive", folder)
    assert (ran.returncode, "has no end" in ran.stderr) == (2, True)


def test_mistakes_have_hints(run: Run, alone: Run, export: Path, tmp_path: Path) -> None:
    for words in (
        ("audit", "verify", tmp_path / "missing"),
        ("audit", "verify", tmp_path),
        ("audit", "verify", "/etc/passwd"),
        ("audit", "verify", export, "--key", "/etc/passwd"),
        ("audit", "verify", export, "--key", tmp_path / "missing"),
        ("audit", "verify", export, "--head", "7"),
        ("audit", "verify", "--head", f"7:{'0' * 64}"),
    ):
        ran = run(*words)
        assert ran.returncode == 2, ran.stderr
        assert "Error: " in ran.stderr
        assert "Hint: " in ran.stderr
    viewer = {"BRANCHLINE_TOKEN": "bl_viewer"}
    for command in ("verify", "export"):
        assert run("audit", command, **viewer).returncode == 3
    assert run("audit", "archive", tmp_path / "a", **viewer).returncode == 3
