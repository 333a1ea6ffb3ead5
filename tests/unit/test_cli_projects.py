"""`init`, `project check` and `schema`: files written and never overwritten, mistakes with their lines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.fakes.command_line import CommandLine
from tests.unit.sample_repositories import DJANGO, PLAIN, SAMPLES, write


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(monkeypatch, capsys, tmp_path)


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=Anna", "-c", "user.email=anna@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_init_writes_passes_the_check(cli: CommandLine, name: str) -> None:
    write(cli.folder, SAMPLES[name])
    ran = cli("init")
    assert (ran.status, ran.err) == (0, "")
    assert "Wrote branchline.yaml" in ran.out
    checked = cli("project", "check")
    assert (checked.status, checked.err) == (0, "")
    assert "branchline.yaml is valid" in checked.out


def test_init_tells_what_it_found_and_what_comes_next(cli: CommandLine) -> None:
    git(cli.folder, "init", "--initial-branch", "main")
    git(cli.folder, "remote", "add", "origin", "git@git.example.com:team/shop.git")
    write(cli.folder, DJANGO)
    git(cli.folder, "commit", "--allow-empty", "-m", "one")
    ran = cli("init", ".")
    for line in (
        "  manage.py and shop/wsgi.py → a Django project\n",
        "  no Dockerfile → one for a Django project is written\n",
        "  the branch main → it goes to staging\n",
        "\nWrote branchline.yaml, Dockerfile, .dockerignore.\n",
        "branchline config set here develop SECRET_KEY",
        "  branchline project add here --repo git@git.example.com:team/shop.git\n",
        "  branchline deploy here\n",
    ):
        assert line in ran.out
    assert yaml.safe_load(Path("branchline.yaml").read_text())["project"] == "here"
    assert list(cli.folder.glob("*.[0-9]*")) == []


def test_init_shows_no_password_of_the_remote(cli: CommandLine) -> None:
    git(cli.folder, "init")
    git(cli.folder, "remote", "add", "origin", "https://anna:s3cret@git.example.com/shop.git")
    write(cli.folder, PLAIN)
    ran = cli("init")
    assert "--repo https://git.example.com/shop.git\n" in ran.out
    assert "s3cret" not in ran.out + ran.err


def test_init_overwrites_nothing(cli: CommandLine) -> None:
    write(cli.folder, {**DJANGO, "branchline.yaml": "mine", ".dockerignore": "mine too\n"})
    ran = cli("init")
    assert (ran.status, ran.out) == (2, "")
    assert "There is a branchline.yaml already." in ran.err
    assert "--force" in ran.err
    assert Path("branchline.yaml").read_text() == "mine"
    assert not Path("Dockerfile").exists()
    assert cli("init", "--force").status == 0
    assert Path("branchline.yaml").read_text().startswith("#")
    assert Path(".dockerignore").read_text() == "mine too\n"
    written = Path("Dockerfile").read_text()
    Path("Dockerfile").write_text(written + "# changed\n")
    assert cli("init", "--force").status == 0
    assert Path("Dockerfile").read_text().endswith("# changed\n")


def test_init_does_not_write_through_a_dangling_link(cli: CommandLine, tmp_path: Path) -> None:
    write(cli.folder, PLAIN)
    Path("branchline.yaml").symlink_to(tmp_path / "elsewhere")
    assert cli("init").status == 2
    assert not (tmp_path / "elsewhere").exists()


def test_init_where_there_is_nothing(cli: CommandLine) -> None:
    ran = cli("init")
    assert ran.status == 2
    assert ran.err.startswith("Error: Nothing to deploy was recognised")
    assert "Hint: " in ran.err
    assert list(cli.folder.iterdir()) == []
    assert cli("init", "nowhere").status == 2


def test_init_below_the_top_says_so(cli: CommandLine) -> None:
    git(cli.folder, "init")
    write(cli.folder / "inner", PLAIN)
    ran = cli("init", "inner")
    assert ran.status == 0
    assert "not the top of its git repository" in ran.out


def test_mistakes_are_shown_like_a_compiler_does(cli: CommandLine) -> None:
    Path("branchline.yaml").write_text("""\
project: shop
services:
  web:
    comand: x
    port: high
environments:
  develop: {on: {branch: develop}}
  production: {on: {branch: main}}
""")
    ran = cli("project", "check")
    assert ran.status == 1
    lines = ran.out.splitlines()
    assert "branchline.yaml:4:5: unknown key `comand` (did you mean `command`?)" in lines
    assert any(line.startswith("branchline.yaml:5:5: `services.web.port`: 'high'") for line in lines)
    assert lines[-1] == f"✗ {len(lines) - 1} problems in branchline.yaml."
    as_json = cli("project", "check", "--json")
    assert as_json.status == 1
    assert (as_json.json["file"], as_json.json["valid"]) == ("branchline.yaml", False)
    assert {
        "line": 4,
        "column": 5,
        "path": "services.web.comand",
        "message": "unknown key `comand`",
        "suggestion": "did you mean `command`?",
    } in as_json.json["problems"]


def test_a_manifest_elsewhere_is_checked_beside_its_own_repository(cli: CommandLine) -> None:
    write(cli.folder / "other", PLAIN)
    cli("init", "other")
    for way in ("other", "other/branchline.yaml"):
        ran = cli("project", "check", way)
        assert (ran.status, ran.out) == (0, "✓ other/branchline.yaml is valid.\n")


def test_what_cannot_be_checked(cli: CommandLine) -> None:
    missing = cli("project", "check")
    assert missing.status == 2
    assert "`branchline init` writes one" in missing.err
    Path("branchline.yaml").write_bytes(b"project: \xff\n")
    assert cli("project", "check", "--json").json["code"] == "bad_manifest"
    Path("branchline.yaml").write_text("")
    assert cli("project", "check").status == 1


MANIFEST = """\
project: shop
build: {target: runtime}
services:
  web:
    command: gunicorn shop.wsgi --bind 0.0.0.0:8000
    port: 8000
    routes: [/]
    healthcheck: {path: /healthz}
environments:
  develop: {on: {branch: develop}}
"""
DOCKERFILE = "FROM python AS runtime\nEXPOSE 8000\nFROM runtime AS test\n"


@pytest.mark.parametrize(
    ("old", "new", "place", "told"),
    [
        ("    healthcheck: {path: /healthz}\n", "", "4:3", "`web` gets requests but has no healthcheck"),
        ("target: runtime", "target: runtme", "2:9", "Dockerfile has no stage 'runtme' (its stages are runtime, test)"),
        ("target: runtime", "dockerfile: docker/Dockerfile", "2:9", "there is no docker/Dockerfile"),
        ("target: runtime", "context: app", "2:1", "there is no app/Dockerfile"),
        ("services:\n", "test: {target: tests, command: x}\nservices:\n", "3:8", "no stage 'tests'"),
        ("0.0.0.0:8000", "0.0.0.0:$PORT", "5:5", "no shell runs this: `0.0.0.0:$PORT` is passed on as it stands"),
        ("services:\n", "release: python manage.py migrate && python x.py\nservices:\n", "3:1", "`&&` is passed on"),
        ("services:\n", "release: A=1 python x.py\nservices:\n", "3:1", "`A=1` is taken for the program"),
        ("services:\n", "test: {command: 'echo a; echo b'}\nservices:\n", "3:8", "`a;` is passed on"),
        ("{path: /healthz}", "{command: curl -f localhost | grep ok}", "8:19", "`|` is passed on"),
        ("--bind 0.0.0.0:8000", "", "5:5", "`gunicorn` listens on 127.0.0.1 only"),
        ("--bind 0.0.0.0:8000", "--bind localhost:8000", "5:5", "`gunicorn` listens on 127.0.0.1 only"),
        ("gunicorn shop.wsgi --bind 0.0.0.0:8000", "flask run", "5:5", "`flask run` listens on 127.0.0.1 only"),
        ("port: 8000", "port: 9000", "6:5", "the command listens on 8000, and `port` is 9000"),
        ("    routes: [/]\n", "", "3:1", "no service has routes"),
        (
            "    routes: [/]\n",
            "    routes: [/]\n    environment: {API_TOKEN: x}\n",
            "8:19",
            "`API_TOKEN` looks like a secret",
        ),
    ],
)
def test_what_will_surprise_is_warned_of(cli: CommandLine, old: str, new: str, place: str, told: str) -> None:
    write(cli.folder, {"branchline.yaml": MANIFEST.replace(old, new), "Dockerfile": DOCKERFILE})
    ran = cli("project", "check")
    assert ran.status == 0
    lines = [line for line in ran.out.splitlines() if told in line]
    assert lines, ran.out
    assert lines[0].startswith(f"branchline.yaml:{place}: warning: ")
    assert ran.out.splitlines()[-1] == "✓ branchline.yaml is valid, with 1 warning."
    warnings = cli("project", "check", "--json").json["warnings"]
    assert [f"{warning['line']}:{warning['column']}" for warning in warnings] == [place]


def test_a_sound_manifest_gets_no_warning(cli: CommandLine) -> None:
    write(cli.folder, {"branchline.yaml": MANIFEST, "Dockerfile": DOCKERFILE})
    assert cli("project", "check").out == "✓ branchline.yaml is valid.\n"
    write(cli.folder, {"Dockerfile": DOCKERFILE + 'ENTRYPOINT ["./entrypoint.sh"]\n'})
    assert cli("project", "check", "--json").json["warnings"] == []


def test_an_entrypoint_that_says_the_same_again(cli: CommandLine) -> None:
    docker = 'FROM python AS runtime\nENTRYPOINT ["gunicorn"]\n'
    write(cli.folder, {"branchline.yaml": MANIFEST, "Dockerfile": docker})
    assert "`gunicorn gunicorn shop.wsgi --bind 0.0.0.0:8000`" in cli("project", "check").out


def test_a_port_that_the_image_does_not_expose(cli: CommandLine) -> None:
    text = MANIFEST.replace("gunicorn shop.wsgi --bind 0.0.0.0:8000", "node server.js")
    write(cli.folder, {"branchline.yaml": text, "Dockerfile": DOCKERFILE.replace("8000", "3000")})
    assert "6:5: warning: the service listens on 8000, and Dockerfile exposes 3000" in cli("project", "check").out


def test_quoted_words_are_meant_as_they_stand(cli: CommandLine) -> None:
    text = MANIFEST.replace("gunicorn shop.wsgi --bind 0.0.0.0:8000", """python -c "print('$HOME; &&')" """)
    write(cli.folder, {"branchline.yaml": text, "Dockerfile": DOCKERFILE})
    assert cli("project", "check").out == "✓ branchline.yaml is valid.\n"


def test_the_schema_is_one_and_takes_what_init_writes(cli: CommandLine) -> None:
    schema = cli("schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    write(cli.folder, SAMPLES["compose"])
    cli("init")
    written = yaml.load(Path("branchline.yaml").read_text(), Loader=yaml.BaseLoader)
    written["services"]["web"]["port"] = int(written["services"]["web"]["port"])
    jsonschema.validate(written, schema)
