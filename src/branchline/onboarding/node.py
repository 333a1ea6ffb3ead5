"""Recognises applications in JavaScript and TypeScript: servers, Next.js, and pages that are plain files."""

from __future__ import annotations

import re
from typing import Any

from branchline.onboarding.application import HEALTH_NAMES, Application, route_in, texts
from branchline.onboarding.repository import Repository
from branchline.onboarding.shell import Words, understood, valid_port
from branchline.onboarding.starters import NODE_IGNORE, NodeStarter

PORT = 3000
PAGE_PORT = 8080
_LOCKS = (
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
)
_POSTGRES = ("pg", "postgres", "pg-promise", "@prisma/client", "typeorm", "@vercel/postgres", "slonik")
_NO_TESTS = "no test specified"
_PAGE_TOOLS = {
    "vite": "dist",
    "react-scripts": "build",
    "@vue/cli-service": "dist",
    "@angular/cli": "dist",
    "parcel": "dist",
    "astro": "dist",
}


def find(repository: Repository) -> Application | None:
    """The application that package.json describes, if it is one that can be served."""
    package = repository.json("package.json")
    if package is None:
        return None
    scripts, needed = _texts(package.get("scripts")), _texts(package.get("dependencies"))
    everything = needed | _texts(package.get("devDependencies"))
    manager, locked = _manager(repository, package)
    # npm runs scripts of other managers' projects, too, and is there without a download at the first start.
    test = ("npm", "test") if scripts.get("test") and _NO_TESTS not in scripts["test"] else None
    if server := _server(repository, package, scripts, needed):
        command, kind = server
        port = _port(repository, command, scripts)
        app = Application(
            kind=kind,
            evidence="package.json",
            command=command,
            port=port,
            release=_migration(scripts, everything),
            test=test,
            test_tools=True,
            postgres=next((name for name in _POSTGRES if name in needed and _speaks_postgres(repository, name)), ""),
            health_path=_health(repository),
            ignore=NODE_IGNORE,
        )
        app.starter = NodeStarter(
            manager,
            locked,
            "build" in scripts,
            command,
            port,
            _version(repository, package),
            test=test is not None,
            generate="npx prisma generate" if "prisma" in everything or "@prisma/client" in everything else "",
            writable=".next" if "next" in needed else "",
        ).text()
        return app
    tool = next((name for name in _PAGE_TOOLS if name in everything), None)
    if tool and "build" in scripts:
        return _page(repository, package, tool, manager, locked, test)
    return None


def _page(
    repository: Repository, package: dict[str, Any], tool: str, manager: str, locked: bool, test: Words | None
) -> Application:
    folder = _PAGE_TOOLS[tool]
    for config in texts(repository, ("vite.config.js", "vite.config.ts", "vite.config.mjs", "vite.config.mts")):
        if (found := re.search(r"""outDir:\s*["']([A-Za-z0-9_][A-Za-z0-9_/.-]*)["']""", config)) and ".." not in found[
            1
        ]:
            folder = found[1]
    command = ("nginx", "-g", "daemon off;")
    app = Application(
        kind="static page",
        evidence=f"package.json with {tool}, and nothing that serves",
        command=command,
        port=PAGE_PORT,
        test=test,
        test_tools=True,
        health_path="/",
        ignore=NODE_IGNORE,
    )
    if tool == "@angular/cli":
        app.advice.append(
            "Angular builds into a folder of the project's name: look at `COPY --from=build` in the Dockerfile."
        )
    version = _version(repository, package)
    app.starter = NodeStarter(manager, locked, True, command, PAGE_PORT, version, folder, test is not None).text()
    return app


def _server(
    repository: Repository, package: dict[str, Any], scripts: dict[str, str], needed: dict[str, str]
) -> tuple[Words, str] | None:
    """What starts the server, and what kind of application it is."""
    kind = next(
        (
            title
            for name, title in (
                ("next", "Next.js application"),
                ("nuxt", "Nuxt application"),
                ("@nestjs/core", "NestJS application"),
                ("express", "Express application"),
                ("fastify", "Fastify application"),
                ("koa", "Koa application"),
                ("hono", "Hono application"),
            )
            if name in needed
        ),
        "Node application",
    )
    if "@nestjs/core" in needed and "start:prod" in scripts:
        return understood(scripts["start:prod"], None).words, kind
    start = scripts.get("start", "")
    if start and not re.search(r"\b(?:vite|react-scripts|webpack|ng|parcel|vue-cli-service)\b", start):
        line = understood(start, None)
        # Node itself as the command hears SIGTERM; npm in between may keep it to itself.
        direct = line.words[:1] == ("node",) and not line.variables and not line.first
        return (line.words if direct else ("npm", "start")), kind
    if "next" in needed:
        return ("npx", "next", "start"), kind
    main = package.get("main")
    file = (
        main if isinstance(main, str) and repository.has(main) else repository.first("server.js", "app.js", "index.js")
    )
    if file and kind != "Node application":
        return ("node", file), kind
    return None


def _port(repository: Repository, command: Words, scripts: dict[str, str]) -> int:
    # The platform says the port in PORT, so the default in the code is what an application without that listens on.
    sources = texts(repository, repository.files(".js", ".ts", ".mjs", ".cjs", depth=3))
    pattern = (
        r"""process\.env\.PORT\s*(?:\|\||\?\?)\s*["']?(\d{2,5})|\.listen\(\s*(\d{2,5})\b|\bport\s*[:=]\s*(\d{2,5})\b"""
    )
    for source in sources:
        if found := re.search(pattern, source, re.IGNORECASE):
            return valid_port(next(group for group in found.groups() if group)) or PORT
    if found := re.search(r"(?:-p|--port)[ =](\d{2,5})", " ".join([*command, scripts.get("start", "")])):
        return valid_port(found[1]) or PORT
    return PORT


def _health(repository: Repository) -> str | None:
    sources = texts(repository, repository.files(".js", ".ts", ".mjs", ".cjs", depth=4))
    found = route_in(sources, rf"""\.(?:get|all|use|route)\(\s*["'`](/(?:api/)?{HEALTH_NAMES})["'`]""")
    if found is None and (
        file := repository.first("app/api/health/route.ts", "app/api/health/route.js", "pages/api/health.js")
    ):
        found = "/api/health" if file else None
    return found


def _migration(scripts: dict[str, str], everything: dict[str, str]) -> Words | None:
    if "prisma" in everything or "@prisma/client" in everything:
        return ("npx", "prisma", "migrate", "deploy")
    name = next(
        (name for name in ("migrate:deploy", "db:migrate", "migrate", "migration:run") if name in scripts), None
    )
    return ("npm", "run", name) if name else None


def _speaks_postgres(repository: Repository, name: str) -> bool:
    if name == "@prisma/client":
        return "postgresql" in (repository.text("prisma/schema.prisma") or "")
    return name != "typeorm"


def _manager(repository: Repository, package: dict[str, Any]) -> tuple[str, bool]:
    """npm, yarn or pnpm, and whether versions are locked."""
    for file, manager in _LOCKS:
        if repository.has(file):
            return manager, True
    named = str(package.get("packageManager") or "").partition("@")[0]
    return (named if named in {"yarn", "pnpm"} else "npm"), False


def _version(repository: Repository, package: dict[str, Any]) -> str:
    engine = str(_texts(package.get("engines")).get("node", ""))
    for text in (repository.text(".nvmrc") or "", repository.text(".node-version") or "", engine):
        if found := re.search(r"\d+", text):
            return str(max(int(found[0]), 18))
    return "24"


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): item for key, item in value.items() if isinstance(item, str)}
