"""Modules that load when first touched, so that a command's request leaves before pydantic has been imported."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["wire", "wire_audit", "wire_config", "wire_logins", "wire_people"]


def _lazily(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"there is no module {name}")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from branchline import wire, wire_audit, wire_config, wire_logins, wire_people
else:
    wire = _lazily("branchline.wire")
    wire_audit = _lazily("branchline.wire_audit")
    wire_config = _lazily("branchline.wire_config")
    wire_logins = _lazily("branchline.wire_logins")
    wire_people = _lazily("branchline.wire_people")
