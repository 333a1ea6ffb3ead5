"""YAML as manifests use it: plain values with the place where each stands, and no surprises.

YAML 1.1 reads `on`, `yes` and `no` as booleans, `1:30` as ninety and `2024-01-01` as a date. In a manifest these are
text; only `true` and `false` are booleans, and only decimal numbers are numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CHARACTERS = 256 * 1024
MAX_NODES = 20_000
"""Aliases may repeat a part of a file. Beyond this many values in all, a file is made to harm, not to be read."""

MAX_DEPTH = 40

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where something stands, counted from 1 as editors do."""

    line: int
    column: int


class NotYaml(Exception):
    """The text is no YAML document of plain values; `place` is where that shows."""

    def __init__(self, message: str, place: Place, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.path = path


@dataclass
class Document:
    """Plain values, with the places of values and of keys by their path."""

    data: Any = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    twice: list[Path] = field(default_factory=list)

    def place(self, path: Path) -> Place:
        """Where the thing at this path stands, or the nearest thing around it."""
        while path:
            if path in self.keys or path in self.values:
                return self.keys.get(path) or self.values[path]
            path = path[:-1]
        return self.values.get((), Place(1, 1))


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 filled below, as PyYAML has it


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"^[-+]?(?:0|[1-9][0-9]*)\.[0-9]+$", "-+0123456789"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "str")}


def read(text: str) -> Document:
    """Read one YAML document; raises NotYaml."""
    if len(text) > MAX_CHARACTERS:
        raise NotYaml(f"the file is longer than {MAX_CHARACTERS // 1024} KiB", Place(1, 1))
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYaml(_plainly(error), _place(mark) if mark else Place(1, 1)) from None
    except yaml.YAMLError as error:  # a character that no YAML may hold
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise NotYaml("the file holds a character that YAML does not allow", Place(line, 1)) from None
    except (RecursionError, ValueError):
        raise NotYaml("the file is nested too deeply", Place(1, 1)) from None
    document = Document()
    if root is not None:
        document.data = _Reading(loader, document).plain(root, (), 0)
    return document


class _Reading:
    """Turns nodes into plain values and notes where they stand."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._count = 0

    def plain(self, node: yaml.Node, path: Path, depth: int) -> Any:
        """The value of a node."""
        self._bound(node, path, depth)
        self._document.values[path] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*path, number), depth + 1) for number, item in enumerate(node.value)]
        if node.tag not in _PLAIN:  # PyYAML stumbles over some of the others, such as a timestamp that is none
            raise NotYaml(f"the tag {node.tag!r} is not for manifests", _place(node.start_mark), path)
        try:
            return self._loader.construct_object(node)
        except (yaml.MarkedYAMLError, ValueError):
            raise NotYaml(f"the tag {node.tag!r} is not for manifests", _place(node.start_mark), path) from None

    def _bound(self, node: yaml.Node, path: Path, depth: int) -> None:
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise NotYaml(
                "the file is nested too deeply, or its aliases repeat too much", _place(node.start_mark), path
            )

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise NotYaml("a key must be plain text", _place(key_node.start_mark), path)
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merged(value_node, path, depth)
                continue
            here = (*path, str(key_node.value))
            if key_node.value in own:
                self._document.twice.append(here)
            own[str(key_node.value)] = self.plain(value_node, here, depth + 1)
            self._document.keys[here] = _place(key_node.start_mark)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: Path, depth: int) -> dict[str, Any]:
        """What `<<:` brings in: a mapping, or a list of mappings of which the first wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise NotYaml("`<<` takes a mapping", _place(source.start_mark), path)
            self._bound(source, path, depth + 1)  # a mapping may even claim to be merged into itself
            merged |= self._mapping(source, path, depth + 1)
        return merged


def _place(mark: yaml.Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _plainly(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "this is no YAML"
    if "\\t" in problem:
        return "a tab stands where YAML wants spaces"
    if "undefined alias" in problem:
        return f"{problem}: nothing has this anchor"
    if "expected a single document" in (error.context or ""):
        return "there is more than one document in the file"
    return f"this is no YAML: {problem}"
