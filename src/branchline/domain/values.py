"""Quantities as people write them in a manifest: durations, sizes, shares, commands, path prefixes."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kKmMgG]?)[iI]?[bB]?$")
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_LONGEST = 10 * 365 * 86400.0
_LARGEST = 1024**5


def parse_duration(value: Any) -> float:
    """Seconds from `90s`, `1m30s`, `500ms`, `7d` (the Compose notation); raises ValueError otherwise."""
    if isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= _LONGEST:
        return float(value)
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is no duration; write it like 30s, 1m30s or 500ms")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST:
        raise ValueError(f"{text[:40]} is longer than ten years")
    return seconds


def parse_size(value: Any) -> int:
    """Bytes from `256M`, `1g`, `512k` (the Compose notation); raises ValueError otherwise."""
    match = _SIZE.match(str(value).strip()) if not isinstance(value, bool) else None
    if not match:
        raise ValueError(f"{value!r} is no size; write it like 256M or 1G")
    size = float(match[1]) * _BYTES[match[2].lower()]
    if size > _LARGEST:
        raise ValueError(f"{str(value)[:40]} is larger than any machine")
    return int(size)


def parse_share(value: Any) -> float:
    """A share between 0 and 1 from `5%` or `0.05`; raises ValueError otherwise."""
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise ValueError(f"{value!r} is no share; write it like 5% or 0.05")
    return share


def parse_command(value: Any) -> tuple[str, ...]:
    """An argument list from a string (split as a shell would, but run without one) or a list of strings."""
    if isinstance(value, str):
        try:
            words = tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"the command cannot be split into words: {error}") from None
    elif isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        words = tuple(value)
    else:
        raise ValueError("a command is a string or a list of strings")
    if not words or not words[0]:
        raise ValueError("a command needs at least one word")
    if any("\x00" in word for word in words):
        raise ValueError("a command cannot hold a NUL character")
    return words


def parse_prefix(value: Any) -> str:
    """A path prefix of a route: `/`, `/api`, `/static`; raises ValueError for anything a proxy could misread."""
    if not isinstance(value, str) or not re.match(r"^/[A-Za-z0-9._~/-]*$", value) or "//" in value or ".." in value:
        raise ValueError(f"{value!r} is no path prefix; write it like / or /api")
    return value if value == "/" else value.rstrip("/")


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", "minimum": 0}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?\s*[kKmMgG]?[iI]?[bB]?$"}),
]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?%?$", "minimum": 0, "maximum": 1}),
]
Command = Annotated[
    tuple[str, ...],
    BeforeValidator(parse_command),
    PlainSerializer(list, return_type=list[str]),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
Prefix = Annotated[
    str,
    BeforeValidator(parse_prefix),
    WithJsonSchema({"type": "string", "pattern": r"^/[A-Za-z0-9._~/-]*$"}),
]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
