"""What onboarding makes of repositories: manifests that work, Dockerfiles where there are none, reasons, advice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline.domain.errors import BadInput
from branchline.domain.manifest import Manifest
from branchline.domain.names import check_name
from branchline.domain.values import parse_command
from branchline.manifest_file import parse
from branchline.manifest_yaml import read
from branchline.onboarding import compose, dockerfile, shell
from branchline.onboarding.detection import look
from branchline.onboarding.draft import Draft
from branchline.onboarding.repository import MAX_BYTES, Repository
from branchline.onboarding.review import review
from branchline.onboarding.writing import command, flow, manifest, scalar
from tests.unit.sample_repositories import COMPOSE, DJANGO, EXPRESS, PLAIN, SAMPLES, write


def drafted(folder: Path, files: dict[str, str], branches: tuple[str, ...] = ()) -> tuple[Draft, Manifest]:
    write(folder, files)
    draft = look(Repository(folder, frozenset(branches), branches[0] if branches else None))
    return draft, parse(manifest(draft))


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_written_is_valid_and_fits_the_repository(tmp_path: Path, name: str) -> None:
    draft, written = drafted(tmp_path, SAMPLES[name], ("main", "develop"))
    write(tmp_path, draft.files)
    text = manifest(draft)
    odd = [warning.message for warning in review(text, written, Repository(tmp_path))]
    expected = {"entrypoint-only": ["Dockerfile has an ENTRYPOINT"], "no-command": ["no service has routes"]}.get(
        name, []
    )
    assert len(odd) == len(expected), odd
    assert all(words in message for words, message in zip(expected, odd, strict=True))
    assert not set(draft.files) & set(SAMPLES[name]), "a file that is there is never written"
    assert {rule.on.branch for rule in written.environments.values()} == {"develop", "main"}
    assert all(service.command == written.services[service.name].command for service in draft.services)
    assert written.release == draft.release


@pytest.mark.parametrize("name", SAMPLES)
def test_every_part_is_explained_and_every_line_short(tmp_path: Path, name: str) -> None:
    draft, _ = drafted(tmp_path, SAMPLES[name])
    text = manifest(draft)
    parts = text.rstrip().split("\n\n")
    assert all(part.startswith("#") for part in parts if not part.startswith("services:"))
    assert all(len(line) < 121 for line in text.splitlines())
    assert draft.found or name == "no-command"


def test_django(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, SAMPLES["django"], ("develop", "main"))
    web = written.services["web"]
    assert web.command == ("gunicorn", "shop.wsgi", "--bind", "0.0.0.0:9000")
    assert (web.port, web.routes, web.healthcheck and web.healthcheck.path) == (9000, ["/"], "/healthz")
    assert written.release == ("python", "manage.py", "migrate", "--noinput")
    assert written.build.target == "runtime"
    assert written.test is not None
    assert (written.test.target, written.test.command, written.test.databases) == (
        "test",
        ("pytest", "-q"),
        ["default"],
    )
    assert written.databases["default"].variable == "DATABASE_URL"
    assert {name: rule.on.branch for name, rule in written.environments.items()} == {
        "develop": "develop",
        "staging": "main",
    }
    assert any("SECRET_KEY" in sentence for sentence in draft.advice)
    assert draft.files == {}


def test_django_without_a_dockerfile_gets_one(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, DJANGO)
    text = draft.files["Dockerfile"]
    stages = {stage.name: stage for stage in dockerfile.stages(text)}
    assert stages["runtime"].command == written.services["web"].command
    assert stages["runtime"].ports == (written.services["web"].port,)
    assert "USER app" in text
    assert "RUN SECRET_KEY=placeholder python manage.py collectstatic --noinput" in text
    assert text.index("COPY requirements.txt") < text.index("COPY . .")
    assert "RUN pip install -r requirements-dev.txt" in text
    assert written.test is not None
    assert written.test.target == "test"
    assert ".env" in draft.files[".dockerignore"].splitlines()
    assert ".git" in draft.files[".dockerignore"].splitlines()


def test_django_that_is_not_ready_is_told_so(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, SAMPLES["django-bare"])
    advice = " ".join(draft.advice)
    for word in ("SQLite", "ALLOWED_HOSTS", "gunicorn is not among the dependencies"):
        assert word in advice
    assert "RUN pip install gunicorn" in draft.files["Dockerfile"]
    assert written.databases == {}
    assert written.services["web"].healthcheck is not None
    assert written.services["web"].healthcheck.tcp


def test_express(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, EXPRESS)
    web = written.services["web"]
    assert web.command == ("node", "src/server.js"), "node itself, which hears SIGTERM"
    assert (web.port, web.healthcheck and web.healthcheck.path) == (4000, "/healthz")
    assert "npm ci" in draft.files["Dockerfile"]
    assert written.test is not None
    assert (written.test.command, written.test.target) == (("npm", "test"), "test")
    assert written.databases


def test_a_page_of_plain_files(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, SAMPLES["vite"])
    assert "COPY --from=build /app/public/out /usr/share/nginx/html" in draft.files["Dockerfile"]
    assert written.services["web"].command == ("nginx", "-g", "daemon off;")
    assert written.databases == {}


def test_a_procfile(tmp_path: Path) -> None:
    _, written = drafted(tmp_path, SAMPLES["procfile"])
    assert list(written.services) == ["web", "worker", "clock"]
    script = "exec gunicorn app:app --bind 0.0.0.0:8000 --workers ${WEB_CONCURRENCY:-2}"
    assert written.services["web"].command == ("sh", "-c", script)
    assert written.services["web"].port == 8000
    assert written.services["worker"].command == ("python", "worker.py")
    assert written.services["worker"].routes == []
    assert written.services["clock"].environment == {"TICK": "5"}
    assert written.release == ("sh", "-c", "python manage.py migrate && python manage.py loaddata start")


def test_a_compose_file(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, COMPOSE)
    assert list(written.services) == ["web", "worker"]
    web = written.services["web"]
    assert web.command == ("gunicorn", "shop.wsgi", "--bind", "0.0.0.0:8000"), "not the development server"
    assert web.healthcheck is not None
    assert web.healthcheck.path == "/health/"
    assert written.release == ("python", "manage.py", "migrate"), "taken out of the command"
    assert written.services["worker"].command == ("celery", "-A", "shop", "worker")
    assert written.databases["default"].variable == "DATABASE_URL"
    advice = " ".join(draft.advice)
    assert "redis (redis:7)" in advice
    assert "REDIS_URL" in advice
    assert "frontend (frontend)" in advice
    assert "mail" not in advice
    assert "not-so-secret" not in manifest(draft) + advice


def test_a_plain_dockerfile(tmp_path: Path) -> None:
    _, written = drafted(tmp_path, PLAIN)
    web = written.services["web"]
    assert web.command == ("/server", "--listen", "0.0.0.0:8080")
    assert (web.port, web.healthcheck and web.healthcheck.path) == (8080, "/livez")


def test_an_application_in_a_folder(tmp_path: Path) -> None:
    _, written = drafted(tmp_path, SAMPLES["monorepo"])
    assert (written.build.context, written.build.dockerfile) == ("backend", "Dockerfile")


def test_fastapi(tmp_path: Path) -> None:
    draft, written = drafted(tmp_path, SAMPLES["fastapi"])
    assert written.services["web"].command[:2] == ("uvicorn", "api.main:app")
    assert written.release == ("alembic", "upgrade", "head")
    assert "ENV PYTHONPATH=/app/src" in draft.files["Dockerfile"]
    assert "FROM python:3.13-slim" in draft.files["Dockerfile"]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "nothing_recognised"),
        ({"README.md": "# hello"}, "nothing_recognised"),
        ({"go.mod": "module x"}, "no_dockerfile"),
        ({"Procfile": "web: ./server"}, "no_dockerfile"),
        ({"package.json": '{"name": "a-library"}'}, "no_dockerfile"),
        ({"Dockerfile": "# nothing yet\n"}, None),
    ],
)
def test_what_cannot_be_deployed(tmp_path: Path, files: dict[str, str], code: str | None) -> None:
    write(tmp_path, files)
    if code is None:
        assert any("has no FROM" in sentence for sentence in look(Repository(tmp_path)).advice)
        return
    with pytest.raises(BadInput) as caught:
        look(Repository(tmp_path))
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("branches", "environments"),
    [
        ((), {"develop": "develop"}),
        (("main",), {"develop": "develop", "staging": "main"}),
        (("master", "develop"), {"develop": "develop", "staging": "master"}),
        (("trunk",), {"develop": "trunk"}),
        (("feat/x, y",), {"develop": "feat/x, y"}),
    ],
)
def test_branches_become_environments(tmp_path: Path, branches: tuple[str, ...], environments: dict[str, str]) -> None:
    _, written = drafted(tmp_path, PLAIN, branches)
    assert {name: rule.on.branch for name, rule in written.environments.items()} == environments


@pytest.mark.parametrize("name", ["shop", "My Shop", "2024-Übersicht", "---", "日本", "x" * 200, "a.b_c"])
def test_the_folder_names_the_project(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    draft, _ = drafted(folder, PLAIN)
    assert check_name(draft.project) == draft.project
    if name == "shop":
        assert draft.project == "shop"


def test_hostile_repositories_are_read_with_care(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("FROM secret\n")
    folder = tmp_path / "inside"
    write(
        folder, {"package.json": "[" * 100_000, "compose.yaml": "a: &a [*a]", "requirements.txt": "x" * (MAX_BYTES + 1)}
    )
    (folder / "Dockerfile").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    repository = Repository(folder)
    assert repository.text("Dockerfile") is None
    assert repository.text("../outside") is None
    assert repository.text(str(outside)) is None
    assert repository.text("requirements.txt") is None
    assert repository.json("package.json") is None
    with pytest.raises(BadInput):
        look(repository)


SCRAPS = [
    "'",
    '"',
    "{",
    "[",
    ":",
    "\n",
    "\x00",
    "é",
    "${",
    "&&",
    " | ",
    "- ",
    "\t",
    "#",
    "*x",
    "<<: ",
    "-1",
    "null",
    "\\",
    "CMD ",
    "FROM ",
]


def damaged(text: str, chance: random.Random) -> str:
    """The text as after an accident."""
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(text) + 1)
        kind = chance.random()
        if kind < 0.35:
            text = text[:place] + text[place + chance.randint(1, 8) :]
        elif kind < 0.75:
            text = text[:place] + chance.choice(SCRAPS) + text[place:]
        else:
            text = "\n".join(chance.sample(text.split("\n"), text.count("\n") + 1))
    return text


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_in_the_files_a_valid_manifest_comes_out_or_a_clear_no(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    outcomes: set[str] = set()
    for number in range(60):
        files = dict(chance.choice(list(SAMPLES.values())))
        other = chance.choice(list(SAMPLES.values()))
        files |= {name: other[name] for name in chance.sample(list(other), 1)}
        files = {name: damaged(text, chance) if chance.random() < 0.5 else text for name, text in files.items()}
        folder = write(tmp_path / str(number), files)
        try:
            draft = look(Repository(folder, frozenset({"main"}), "main"))
        except BadInput as refused:
            outcomes.add(refused.code)
            continue
        text = manifest(draft)
        review(text, parse(text), Repository(folder))
        outcomes.add("written")
    assert "written" in outcomes
    assert outcomes <= {"written", "no_dockerfile", "nothing_recognised"}


def test_a_procfile_with_nothing_but_a_release(tmp_path: Path) -> None:
    _, written = drafted(tmp_path, {**PLAIN, "Procfile": "release: ./migrate --now && ./seed\n"})
    assert written.release == ("sh", "-c", "./migrate --now && ./seed")
    assert list(written.services) == ["web"]


# --- the pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("node server.js", ("node", "server.js")),
        ("exec node server.js", ("node", "server.js")),
        ("gunicorn -b :$PORT app", ("gunicorn", "-b", ":8000", "app")),
        ("gunicorn -b :${PORT:-5000} app", ("gunicorn", "-b", ":8000", "app")),
        ("echo 'a $HOME'", ("echo", "a $HOME")),
        ('echo "$HOME"', ("sh", "-c", 'exec echo "$HOME"')),
        ("a | b", ("sh", "-c", "a | b")),
        ("a && b", ("sh", "-c", "a && b")),
        ("A=$B c", ("sh", "-c", "A=$B c")),
        ("ls *.py", ("sh", "-c", "exec ls *.py")),
        ("it's", ("sh", "-c", "exec it's")),
    ],
)
def test_lines_for_a_shell(line: str, words: tuple[str, ...]) -> None:
    assert shell.understood(line, 8000).words == words


def test_migrations_come_apart() -> None:
    found = shell.understood("python manage.py migrate && A=1 gunicorn x", 8000)
    assert found.first == (("python", "manage.py", "migrate"),)
    assert (found.words, found.variables) == (("gunicorn", "x"), {"A": "1"})


WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_any_command_survives_the_writing(words: list[str]) -> None:
    found = read(f"run: {command(tuple(words))}\n").data["run"]
    assert parse_command(found) == tuple(words)


@given(WORDS)
def test_any_text_survives_the_writing(text: str) -> None:
    assert read(f"a: {scalar(text)}  # comment").data["a"] == text
    assert read(f"a: {{b: {flow(text)}}}").data["a"]["b"] == text


def test_dockerfiles_of_all_kinds() -> None:
    stages = dockerfile.stages("""\
# syntax=docker/dockerfile:1
ARG V=1
FROM --platform=$BUILDPLATFORM node:${V} as Build
RUN <<EOF
CMD not this
EOF
EXPOSE 1000/udp 2000-3000 $X
FROM build
EXPOSE 80
ENTRYPOINT ["tini", "--"]
CMD [ "node",\\
  # a comment within
  "x.js" ]
HEALTHCHECK --interval=5s CMD wget -qO- http://127.0.0.1:80/up || exit 1
""")
    assert [(stage.name, stage.base) for stage in stages] == [("Build", "node:${V}"), (None, "node:${V}")]
    assert stages[0].command is None
    assert (stages[1].ports, stages[1].command, stages[1].entrypoint) == ((80, 1000), ("node", "x.js"), ("tini", "--"))
    assert stages[1].health_path == "/up"
    assert dockerfile.stages("CMD x\n") == []
    assert dockerfile.stages("") == []


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ("['8000']", 8000),
        ("['80:8000']", 8000),
        ("['127.0.0.1:80:8000/tcp']", 8000),
        ("['${PORT:-80}:${INNER:-8000}']", None),
        ("['${A:-80}:8000']", 8000),
        ("[{target: 8000, published: 80}]", 8000),
        ("[8000]", 8000),
        ("8000", None),
        ("['x', '9:9000']", 9000),
    ],
)
def test_ports_in_compose_files(tmp_path: Path, ports: str, port: int | None) -> None:
    write(tmp_path, {"compose.yml": f"services: {{web: {{build: ., ports: {ports}}}}}"})
    found = compose.find(Repository(tmp_path))
    assert found is not None
    assert found.services[0].port == port


@pytest.mark.parametrize(
    ("image", "postgres"),
    [
        ("postgres", True),
        ("postgres:17-alpine", True),
        ("docker.io/library/postgres:17", True),
        ("postgis/postgis:17-3.5", True),
        ("pgvector/pgvector:pg17", True),
        ("ghcr.io/me/postgres-backup", False),
        ("prometheuscommunity/postgres-exporter", False),
        ("mysql", False),
    ],
)
def test_images_of_postgresql(image: str, postgres: bool) -> None:
    assert compose.ComposeService("db", image).is_postgres is postgres
