"""Reads a Procfile, in which Heroku's users name their process types."""

from __future__ import annotations

import re

from branchline.onboarding.repository import Repository

_LINE = re.compile(r"^([A-Za-z0-9_-]+):\s*(.+?)\s*$")


def find(repository: Repository) -> dict[str, str]:
    """Process types and their commands, in the file's order; empty where there is no Procfile."""
    text = repository.text("Procfile") or ""
    found = (_LINE.match(line) for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {match[1]: match[2] for match in found if match}
