"""Which environment was perhaps meant by a name that is none: production above all, which others must not stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

from branchline.domain.environment import DEVELOP

PRODUCTION = "production"
_USUAL = (DEVELOP, "staging", PRODUCTION)

_FOR_PRODUCTION = {"prod", "prd", "live", "produccion", "producao", "produzione"}
_SHORT = {"dev": DEVELOP, "stage": "staging", "stg": "staging", **dict.fromkeys(_FOR_PRODUCTION, PRODUCTION)}

_OTHER_THAN = re.compile(r"(pre|post|non|no|not|un)-?prod")
"""Begins the names of what is expressly not production."""


def looks_like_production(name: str) -> bool:
    """Whether people who write this mean production: `prod`, `live-2`, `produktion`, `produciton`."""
    plain = re.sub(r"[-0-9]+$", "", name)
    if plain in _FOR_PRODUCTION:
        return name != PRODUCTION
    alike = SequenceMatcher(None, plain, PRODUCTION).ratio() >= 0.85
    return name != PRODUCTION and alike and not _OTHER_THAN.match(name)


def perhaps_meant(name: str, known: Iterable[str]) -> str:
    """The environment that `name` was perhaps to be: one of `known`, or of those that most projects have; else ""."""
    if name in _USUAL:
        return ""
    if _OTHER_THAN.match(name):
        return ""
    if looks_like_production(name) or {"prod", "prd", PRODUCTION} & {*name.split("-")}:
        return PRODUCTION
    there = sorted({*known, *_USUAL} - {name})
    close = get_close_matches(name, there, 1, 0.8)
    return _SHORT.get(name) or (close[0] if close else "")
