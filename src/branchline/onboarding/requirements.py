"""Which packages an application in Python needs, wherever it says so."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from branchline.onboarding.repository import Repository

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
TEST_FILES = (
    "requirements-test.txt",
    "requirements-dev.txt",
    "requirements/test.txt",
    "requirements/dev.txt",
    "requirements_test.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "test-requirements.txt",
)
MAIN_FILES = ("requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt")


def dependencies(repository: Repository) -> tuple[set[str], set[str]]:
    """The names of what the application needs, and of what its developers and tests need besides."""
    main: set[str] = set()
    test: set[str] = set()
    for file in MAIN_FILES:
        main |= _requirements(repository.text(file) or "")
    for file in TEST_FILES:
        test |= _requirements(repository.text(file) or "")
    for table, names in (("pyproject.toml", _pyproject), ("Pipfile", _pipfile)):
        try:
            content = tomllib.loads(repository.text(table) or "")
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        own, others = names(content)
        main |= own
        test |= others
    return main, test


def _requirements(text: str) -> set[str]:
    names = (_REQUIREMENT.match(line) for line in text.splitlines())
    return {_canonical(match[1]) for match in names if match}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pyproject(content: dict[str, Any]) -> tuple[set[str], set[str]]:
    project, poetry = _table(content, "project"), _table(content, "tool", "poetry")
    main = _requirements("\n".join(_strings(project.get("dependencies"))))
    main |= {_canonical(name) for name in _table(poetry, "dependencies")}
    others: set[str] = set()
    for groups in (_table(project, "optional-dependencies"), _table(content, "dependency-groups")):
        for listed in groups.values():
            others |= _requirements("\n".join(_strings(listed)))
    others |= {_canonical(name) for name in _table(poetry, "dev-dependencies")}
    for group in _table(poetry, "group").values():
        if isinstance(group, dict):
            others |= {_canonical(name) for name in _table(group, "dependencies")}
    return main, others - main


def _pipfile(content: dict[str, Any]) -> tuple[set[str], set[str]]:
    main = {_canonical(name) for name in _table(content, "packages")}
    return main, {_canonical(name) for name in _table(content, "dev-packages")}


def _table(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        inner = content.get(key)
        content = inner if isinstance(inner, dict) else {}
    return content


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
