"""Dockerfiles to begin with, for applications that have none: small, layered for quick builds, not run as root."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from branchline.onboarding.shell import Words

_COMMON_IGNORE = (".git", ".github", ".env", ".env.local", ".env.*.local", "*.log", "**/.DS_Store", "branchline.yaml")
PYTHON_IGNORE = (*_COMMON_IGNORE, ".venv", "venv", "**/__pycache__", "**/*.pyc", ".pytest_cache", "*.sqlite3")
NODE_IGNORE = (*_COMMON_IGNORE, "**/node_modules", ".next", "coverage")


def ignore_file(patterns: Sequence[str]) -> str:
    """A .dockerignore."""
    return "# What the build does not need, and what must never get into an image.\n" + "\n".join(patterns) + "\n"


@dataclass(frozen=True)
class PythonStarter:
    """A Dockerfile for an application in Python. `install` is a tool (uv, poetry, …) or a file of requirements."""

    install: str
    extra: str
    tests: str
    test_names: tuple[str, ...]
    test_command: Words
    collect_static: bool
    placeholders: tuple[str, ...]
    command: Words
    port: int
    python: str
    source: str = ""
    """The folder that holds the packages, where that is not the top."""

    @property
    def has_test_stage(self) -> bool:
        """Whether the tests need an image of their own."""
        return self.test_command[:1] == ("pytest",) or bool(self.test_command and self.placeholders)

    def text(self) -> str:
        """The Dockerfile."""
        stages = [self._runtime()]
        if self.has_test_stage:
            stages.append(self._test())
        return "\n\n".join(stages) + "\n"

    def _runtime(self) -> str:
        lines = [
            "# Written by `branchline init`; it is yours now, change it as you like.",
            f"FROM python:{self.python}-slim AS runtime",
            "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1",
            "WORKDIR /app",
            "",
            "# What changes seldom comes first: a changed line of code does not install everything again.",
            *self._dependencies(),
            *([f"RUN pip install {self.extra}"] if self.extra else []),
            "",
            "COPY . .",
            *([f"ENV PYTHONPATH=/app/{self.source}"] if self.source else []),
        ]
        if self.install == "project":
            lines.append("RUN pip install .")
        if self.collect_static:
            if self.placeholders:
                lines.append("# The settings ask for these variables; the build has no use for their values.")
            placeholders = "".join(f"{name}={_placeholder(name)} " for name in self.placeholders)
            lines.append(f"RUN {placeholders}python manage.py collectstatic --noinput")
        lines += [
            "RUN useradd --uid 10001 --create-home app",
            "USER app",
            f"EXPOSE {self.port}",
            f"CMD {json.dumps(list(self.command))}",
        ]
        return "\n".join(lines)

    def _dependencies(self) -> list[str]:
        if self.install == "uv":
            return [
                "RUN pip install uv",
                "COPY pyproject.toml uv.lock ./",
                "RUN uv sync --frozen --no-dev --no-install-project",
                "ENV PATH=/app/.venv/bin:$PATH",
            ]
        if self.install == "poetry":
            return [
                "RUN pip install poetry && poetry config virtualenvs.create false",
                "COPY pyproject.toml poetry.lock ./",
                "RUN poetry install --only main --no-root",
            ]
        if self.install == "pipenv":
            return ["RUN pip install pipenv", "COPY Pipfile Pipfile.lock ./", "RUN pipenv install --system --deploy"]
        if self.install in {"", "project"}:
            return []
        folder = self.install.rpartition("/")[0]
        copied = f"COPY {folder} {folder}" if folder else f"COPY {self.install} ./"
        return [copied, f"RUN pip install -r {self.install}"]

    def _test(self) -> str:
        lines = [
            "# The same image with the tests' tools; environments never run this one.",
            "FROM runtime AS test",
            "USER root",
        ]
        if self.test_command[:1] == ("pytest",):
            lines.append(self._test_tools())
        if names := [name for name in self.placeholders if name != "DATABASE_URL"]:
            lines.append("ENV " + " ".join(f"{name}={_placeholder(name)}" for name in names))
        return "\n".join([*lines, "USER app"])

    def _test_tools(self) -> str:
        if self.tests:
            return f"RUN pip install -r {self.tests}"
        commands = {
            "uv": "uv sync --frozen --no-install-project",
            "poetry": "poetry install --no-root",
            "pipenv": "pipenv install --system --deploy --dev",
        }
        return f"RUN {commands.get(self.install) or 'pip install ' + ' '.join(self.test_names)}"


def _placeholder(name: str) -> str:
    """A value that lets settings load where nothing is done with it."""
    return "postgres://placeholder/placeholder" if name.endswith("URL") else "placeholder"


@dataclass(frozen=True)
class NodeStarter:
    """A Dockerfile for an application in JavaScript. `manager` is npm, yarn or pnpm."""

    manager: str
    locked: bool
    build: bool
    command: Words
    port: int
    node: str
    static: str = ""
    """For a page without a server of its own: the folder that its build writes."""
    test: bool = False
    generate: str = ""
    writable: str = ""
    """A folder that the server writes to while it runs."""

    def text(self) -> str:
        """The Dockerfile."""
        return (self._page() if self.static else self._server()) + "\n"

    def _begin(self, name: str) -> list[str]:
        files = {
            "npm": "package.json package-lock.json*",
            "yarn": "package.json yarn.lock*",
            "pnpm": "package.json pnpm-lock.yaml*",
        }
        return [
            "# Written by `branchline init`; it is yours now, change it as you like.",
            f"FROM node:{self.node}-slim AS {name}",
            "WORKDIR /app",
            *([] if self.manager == "npm" else [f"RUN {self._corepack()}"]),
            "",
            "# What changes seldom comes first: a changed line of code does not install everything again.",
            f"COPY {files[self.manager]} ./",
            f"RUN {self._install()}",
            "",
            "COPY . .",
            *([f"RUN {self.generate}"] if self.generate else []),
            *([f"RUN {self.manager} run build"] if self.build else []),
        ]

    def _corepack(self) -> str:
        return "corepack enable" if int(self.node) < 25 else "npm install --global --force corepack && corepack enable"

    def _install(self) -> str:
        if self.manager == "npm":
            return "npm ci" if self.locked else "npm install"
        return f"{self.manager} install" + (" --frozen-lockfile" if self.locked else "")

    def _server(self) -> str:
        run = [
            "ENV NODE_ENV=production",
            *([f"RUN chown -R node:node {self.writable}"] if self.writable else []),
            "USER node",
            f"EXPOSE {self.port}",
            f"CMD {json.dumps(list(self.command))}",
        ]
        if not self.test:
            return "\n".join([*self._begin("runtime"), *run])
        return "\n".join(
            [
                *self._begin("build"),
                "",
                "# Everything, with the tests' tools; environments never run this one.",
                "FROM build AS test",
                "USER node",
                "",
                "FROM build AS runtime",
                *run,
            ]
        )

    def _page(self) -> str:
        return "\n".join(
            [
                *self._begin("build"),
                "",
                *(["FROM build AS test", ""] if self.test else []),
                "# The page as plain files, served by nginx; a path that is no file gets index.html.",
                "FROM nginx:1-alpine AS runtime",
                f"RUN printf 'server {{ listen {self.port}; root /usr/share/nginx/html; "
                "location / { try_files $uri $uri/ /index.html; } }\\n' > /etc/nginx/conf.d/default.conf",
                f"COPY --from=build /app/{self.static} /usr/share/nginx/html",
                f"EXPOSE {self.port}",
                f"CMD {json.dumps(list(self.command))}",
            ]
        )
