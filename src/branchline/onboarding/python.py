"""Recognises Django, FastAPI and Flask, how they are served, migrated and tested."""

from __future__ import annotations

import re

from branchline.onboarding.application import HEALTH_NAMES, Application, route_in, texts
from branchline.onboarding.repository import Repository
from branchline.onboarding.requirements import MAIN_FILES, TEST_FILES, dependencies
from branchline.onboarding.shell import Words
from branchline.onboarding.starters import PYTHON_IGNORE, PythonStarter

PORT = 8000
_EVERYWHERE = "0.0.0.0"  # noqa: S104 inside a container
_POSTGRES = ("psycopg", "psycopg2", "psycopg2-binary", "psycopg-binary", "asyncpg", "pg8000")


def find(repository: Repository) -> Application | None:
    """The Python application in a folder, if there is one that can be recognised."""
    django = _django(repository)
    return django or _small_framework(repository)


def _django(repository: Repository) -> Application | None:
    if not repository.has("manage.py"):
        return None
    main, test = dependencies(repository)
    wsgi = next((path for path in repository.files("wsgi.py", depth=3) if path.count("/") >= 1), None)
    asgi = next((path for path in repository.files("asgi.py", depth=3) if path.count("/") >= 1), None)
    module = _module(wsgi or asgi or "")
    settings = "\n".join(texts(repository, (path for path in repository.files(".py", depth=4) if "settings" in path)))
    server, advice = _django_server(main, module, asgi=wsgi is None or (asgi is not None and "daphne" in main))
    urls = texts(repository, repository.files("urls.py"))
    app = Application(
        kind="Django project",
        evidence="manage.py" + (f" and {wsgi or asgi}" if module else ""),
        command=server,
        port=PORT,
        release=("python", "manage.py", "migrate", "--noinput"),
        test=_tests(repository, main | test, django=True),
        test_tools=bool(test & {"pytest", "pytest-django"}) and "pytest" not in main,
        postgres=next((name for name in _POSTGRES if name in main), ""),
        health_path=route_in(
            urls, rf"""path\(\s*["']({HEALTH_NAMES}/?)["']""", rf"""re_path\(\s*r?["']\^({HEALTH_NAMES}/?)\$"""
        ),
        ignore=PYTHON_IGNORE,
        advice=advice,
    )
    _advise_on_settings(app, settings)
    collect = "STATIC_ROOT" in settings and "whitenoise" in main
    app.starter = _starter(repository, app, main, collect=collect, settings=settings)
    return app


def _django_server(main: set[str], module: str, *, asgi: bool) -> tuple[Words, list[str]]:
    if not module:
        advice = (
            "There is no wsgi.py or asgi.py, so `runserver` was written as the command: it is for development only."
        )
        return ("python", "manage.py", "runserver", f"{_EVERYWHERE}:{PORT}"), [advice]
    if asgi and "daphne" in main:
        return ("daphne", "-b", _EVERYWHERE, "-p", str(PORT), f"{module}.asgi:application"), []
    if asgi and "uvicorn" in main and "gunicorn" not in main:
        return ("uvicorn", f"{module}.asgi:application", "--host", _EVERYWHERE, "--port", str(PORT)), []
    return ("gunicorn", f"{module}.wsgi", "--bind", f"{_EVERYWHERE}:{PORT}"), []


def _advise_on_settings(app: Application, settings: str) -> None:
    url_read = "DATABASE_URL" in settings or "dj_database_url" in settings or re.search(r"\benv\.db\(", settings)
    if "sqlite3" in settings and not url_read:
        app.advice.append(
            "The settings name SQLite. A container's files vanish at every deployment: use PostgreSQL, with "
            "`psycopg` and `dj-database-url` reading DATABASE_URL."
        )
    elif app.postgres and not url_read:
        app.advice.append(
            "The settings do not read DATABASE_URL, in which each environment finds its database: "
            "`dj_database_url.config()` reads it."
        )
    if re.search(r"ALLOWED_HOSTS\s*(?::[^=]+)?=\s*\[\s*\]", settings):
        app.advice.append(
            "ALLOWED_HOSTS is empty: add the hostnames of the environments, and `localhost` for the healthcheck."
        )
    for name in _needed_variables(settings):
        if name != "DATABASE_URL":
            app.advice.append(
                f"The settings need the variable {name}: `branchline config set PROJECT develop {name}` before the "
                "first deployment."
            )


def _needed_variables(source: str) -> list[str]:
    """Variables without which the code does not even start."""
    found = re.findall(r"""os\.environ\[\s*["']([A-Za-z_][A-Za-z0-9_]*)["']\s*\]""", source)
    found += re.findall(r"""\b(?:env|config)\(\s*["']([A-Z][A-Z0-9_]*)["']\s*\)""", source)
    return list(dict.fromkeys(found))


def _small_framework(repository: Repository) -> Application | None:
    main, test = dependencies(repository)
    framework = next((name for name in ("fastapi", "starlette", "flask") if name in main), None)
    if framework is None:
        return None
    where = _instance(repository, {"fastapi": "FastAPI", "starlette": "Starlette", "flask": "Flask"}[framework])
    sources = texts(repository, repository.files(".py", depth=3))
    flask = framework == "flask"
    file, target = where or ("", "")
    source = "src" if file.startswith("src/") else ""
    command: Words | None = None
    if target:
        command = ("uvicorn", target, "--host", _EVERYWHERE, "--port", str(PORT))
        if flask:
            command = ("gunicorn", target, "--bind", f"{_EVERYWHERE}:{PORT}")
    app = Application(
        kind={"fastapi": "FastAPI application", "starlette": "Starlette application", "flask": "Flask application"}[
            framework
        ],
        evidence=f"{framework} in the requirements" + (f" and {file}" if file else ""),
        command=command,
        port=PORT,
        release=("alembic", "upgrade", "head") if repository.has("alembic.ini") and "alembic" in main else None,
        test=_tests(repository, main | test, django=False),
        test_tools="pytest" in test and "pytest" not in main,
        postgres=next((name for name in _POSTGRES if name in main), ""),
        health_path=route_in(sources, rf"""@\w+\.(?:get|route)\(\s*["'](/{HEALTH_NAMES}/?)["']"""),
        ignore=PYTHON_IGNORE,
    )
    for name in _needed_variables("\n".join(sources)):
        if name != "DATABASE_URL":
            app.advice.append(
                f"The code needs the variable {name}: `branchline config set PROJECT develop {name}` before the first "
                "deployment."
            )
    app.starter = _starter(repository, app, main, collect=False, settings="", source=source) if command else None
    return app


def _instance(repository: Repository, class_: str) -> tuple[str, str] | None:
    """The file and the import path of the application object, `package.module:name`."""
    for file in repository.files(".py", depth=4):
        if "test" in file:
            continue
        found = re.search(rf"^(\w+)\s*(?::[^=\n]+)?=\s*{class_}\(", repository.text(file) or "", re.MULTILINE)
        if found:
            return file, f"{_module_path(file)}:{found[1]}"
        if class_ == "Flask" and re.search(r"^def create_app\(", repository.text(file) or "", re.MULTILINE):
            return file, f"{_module_path(file)}:create_app()"
    return None


def _module_path(file: str) -> str:
    path = file.removesuffix(".py").removesuffix("/__init__")
    return path.removeprefix("src/").replace("/", ".")


def _module(file: str) -> str:
    """The package of `shop/wsgi.py`, `shop`."""
    return file.rpartition("/")[0].replace("/", ".")


def _tests(repository: Repository, names: set[str], *, django: bool) -> Words | None:
    has_tests = any("test" in path for path in repository.files(".py"))
    if not has_tests:
        return None
    if "pytest" in names or "pytest-django" in names:
        return ("pytest", "-q")
    return ("python", "manage.py", "test") if django else None


def _starter(
    repository: Repository, app: Application, main: set[str], *, collect: bool, settings: str, source: str = ""
) -> str:
    server = (app.command or ("gunicorn",))[0]
    missing = server if server in {"gunicorn", "uvicorn"} and server not in main else ""
    if missing:
        how = "`uv add`" if repository.has("uv.lock") else "your requirements"
        app.advice.append(
            f"{server} is not among the dependencies; the Dockerfile installs it. Better: add it to {how}."
        )
    return PythonStarter(
        install=_install(repository),
        extra=missing,
        tests=next((file for file in TEST_FILES if repository.has(file)), ""),
        test_names=("pytest", "pytest-django") if app.kind.startswith("Django") else ("pytest",),
        test_command=app.test or (),
        collect_static=collect,
        placeholders=tuple(_needed_variables(settings)),
        command=app.command or (),
        port=app.port or PORT,
        python=_version(repository),
        source=source,
    ).text()


def _install(repository: Repository) -> str:
    """Which tool installs the dependencies."""
    for file, tool in (("uv.lock", "uv"), ("poetry.lock", "poetry"), ("Pipfile.lock", "pipenv")):
        if repository.has(file):
            return tool
    if found := next((file for file in MAIN_FILES if repository.has(file)), None):
        return found
    return "project" if repository.has("pyproject.toml") else ""


def _version(repository: Repository) -> str:
    """The version of Python that the repository asks for, or one that everything runs on."""
    for file in (".python-version", "runtime.txt"):
        if found := re.search(r"3\.\d+", repository.text(file) or ""):
            return found[0]
    if found := re.search(r"""requires-python\s*=\s*["'][^"']*?(3\.\d+)""", repository.text("pyproject.toml") or ""):
        return max(found[1], "3.13", key=lambda version: int(version.partition(".")[2]))
    return "3.13"
