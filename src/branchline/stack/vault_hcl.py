"""HCL, the notation of OpenBao and HashiCorp Vault: values, requests and policies, for people and for servers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def value(of: object) -> str:
    """A value in HCL, which writes objects with equals signs and is otherwise JSON."""
    if isinstance(of, dict):
        return "{ " + ", ".join(f"{key} = {value(item)}" for key, item in of.items()) + " }"
    if isinstance(of, list):
        return "[" + ", ".join(map(value, of)) + "]"
    return json.dumps(of)


def written(path: str, data: Mapping[str, Any]) -> str:
    """A block for a request: its path, and what is written there; a policy keeps its lines."""
    lines = [f"  {key} = {_block(item) if key == 'policy' else value(item)}" for key, item in data.items()]
    return "\n".join([f'write "{path}" {{', *lines, "}\n"])


def policy(needed: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A policy that allows exactly this."""
    return "".join(f'path "{path}" {{ capabilities = {value(list(able))} }}\n' for path, able in needed)


def _block(text: str) -> str:
    return f"<<EOT\n{text.rstrip()}\nEOT"
