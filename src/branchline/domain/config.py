"""Config: the settings of an environment. Every value is treated as a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from branchline.domain.errors import BadInput
from branchline.domain.names import ENVIRONMENT_KEY

MAX_VALUE_BYTES = 128 * 1024
"""An environment variable longer than this cannot be passed to a Linux process (MAX_ARG_STRLEN)."""


class Secret:
    """A value that cannot print itself; `reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value. Only adapters that hand it over may ask."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written down")


class Config(Mapping[str, Secret]):
    """Key to secret. `versions` says of which version of which layer, by its path; 0 where a layer was not there."""

    def __init__(self, values: Mapping[str, Secret] | None = None, versions: Mapping[str, int] | None = None) -> None:
        self._values = dict(values or {})
        self.versions = dict(versions or {})

    def __getitem__(self, key: str) -> Secret:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Config({sorted(self._values)}, versions={self.versions})"


def check_key(key: str) -> str:
    """Return `key` if it can name an environment variable; raise BadInput otherwise."""
    if not re.match(ENVIRONMENT_KEY, key) or key.endswith("\n"):
        raise BadInput(
            f"{key[:60]!r} cannot name a setting.",
            code="bad_key",
            hint="Use letters, digits and '_', not starting with a digit, at most 128 characters.",
        )
    return key


def is_platforms(key: str) -> bool:
    """Whether the platform tells containers this itself; `PORT` only those of a service that has one."""
    return key == "PORT" or key.startswith("BRANCHLINE_")


def check_settable(key: str) -> str:
    """Return `key` if a config may set it; raise BadInput (`bad_key`, `platforms_key`) otherwise."""
    if is_platforms(check_key(key)):
        raise BadInput(
            f"The platform writes {key} itself.",
            code="platforms_key",
            hint="Take it out: containers are told what the platform says of it.",
        )
    return key


def too_long(key: str) -> BadInput:
    """The error for a value that no process could be given."""
    return BadInput(
        f"The value of {key} is too long for an environment variable.",
        code="bad_value",
        hint="The limit is 128 KiB; put larger things into a file or a bucket.",
    )


def check_value(key: str, value: str) -> Secret:
    """Return `value` as a secret if a process can receive it; raise BadInput otherwise (never showing it)."""
    if "\x00" in value:
        raise BadInput(
            f"The value of {key} holds a NUL character.", code="bad_value", hint="Encode binary values, as base64."
        )
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # half a character: what a shell hands on of bytes that are no text
        raise BadInput(
            f"The value of {key} is not text in UTF-8.", code="bad_value", hint="Encode binary values, as base64."
        ) from None
    if size >= MAX_VALUE_BYTES - len(key) - 2:
        raise too_long(key)
    return Secret(value)
