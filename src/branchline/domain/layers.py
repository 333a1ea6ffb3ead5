"""Layers of config: which documents an environment's settings come from, and which of them answers for a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from branchline.domain.config import Config, Secret
from branchline.domain.environment import DEVELOP, Environment, Inherits, Tier, tier_of
from branchline.domain.errors import BadInput
from branchline.domain.names import check_name

COMMON = "_common"
"""The layer of a whole project. No environment can be called so."""


@dataclass(frozen=True)
class Layer:
    """One document of settings: a project's own, or an environment's. `name` is COMMON or an environment's name."""

    project: str
    name: str

    def __post_init__(self) -> None:
        """Raises BadInput (`bad_name`): nothing that a URL or a templated policy could read otherwise gets through."""
        check_name(self.project, "name of a project")
        if self.name != COMMON:
            check_name(self.name, "name of an environment")

    @property
    def tier(self) -> Tier:
        """Whose documents it is kept with."""
        return tier_of(self.name)

    @property
    def path(self) -> str:
        """Where it is kept within its tier: `shop/_common`, `shop/env/develop`."""
        return f"{self.project}/{self.name}" if self.name == COMMON else f"{self.project}/env/{self.name}"

    @classmethod
    def at(cls, path: str) -> Layer:
        """The layer that is kept there; raises BadInput (`bad_name`) where no layer could be."""
        project, _, rest = path.partition("/")
        found = cls(project, rest if rest == COMMON else rest.removeprefix("env/"))
        if found.path != path:
            raise BadInput(f"{path[:60]!r} is no layer.", code="bad_name", hint="Such as shop/env/develop.")
        return found

    @property
    def height(self) -> int:
        """Where it stands among the layers of an environment: the highest is the nearest."""
        return {COMMON: 0, DEVELOP: 1}.get(self.name, 2)

    def __str__(self) -> str:
        return f"{self.project} {self.name}"


def layers_of(project: str, name: str, inherits: Inherits) -> tuple[Layer, ...]:
    """The layers of an environment, lowest first. Production has its own and no other."""
    own = Layer(project, name)
    if own.tier is Tier.PRODUCTION or inherits is Inherits.NOTHING or name == COMMON:
        return (own,)
    beneath = [Layer(project, COMMON)]
    if inherits is Inherits.DEVELOP and name != DEVELOP:
        beneath.append(Layer(project, DEVELOP))
    return (*beneath, own)


def may_read(environment: Environment, layer: Layer) -> bool:
    """Whether a layer is the environment's own or one that it can inherit."""
    ours = layer.project == environment.project and layer.tier is environment.tier
    return ours and layer.name in {COMMON, DEVELOP, environment.name}


class Hidden(Enum):
    """Says of a key that it is unset here, whatever the layers beneath say."""

    HIDDEN = "hidden"


HIDDEN = Hidden.HIDDEN

Change = Secret | Hidden | None
"""What becomes of a key in a layer: it is set, hidden, or (None) taken out, so that what lies beneath shows again."""


@dataclass(frozen=True)
class Keys:
    """What is known of one version of a layer without any value."""

    version: int
    shown: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Document:
    """One version of a layer (0: nothing was ever written). An entry is a secret, or HIDDEN."""

    layer: Layer
    version: int
    entries: Mapping[str, Secret | Hidden]

    @property
    def keys(self) -> Keys:
        """The same without the values."""
        hidden = frozenset(key for key, entry in self.entries.items() if entry is HIDDEN)
        return Keys(self.version, frozenset(self.entries) - hidden, hidden)


def answering(found: Mapping[Layer, Keys]) -> dict[str, Layer]:
    """For every key that any layer mentions, the nearest one that does: what it says holds, even where it hides."""
    answers: dict[str, Layer] = {}
    for layer in sorted(found, key=lambda one: one.height):
        answers |= dict.fromkeys(found[layer].shown | found[layer].hidden, layer)
    return answers


def resolve(documents: Sequence[Document]) -> Config:
    """Lay documents over each other: key by key, the nearest one answers.

    Raises BadInput (`bad_layers`) where they are not the layers of one environment: production's stand alone.
    """
    _check_together(document.layer for document in documents)
    values: dict[str, Secret] = {}
    for document in sorted(documents, key=lambda one: one.layer.height):
        for key, entry in document.entries.items():
            if isinstance(entry, Secret):
                values[key] = entry
            else:
                values.pop(key, None)
    return Config(values, {document.layer.path: document.version for document in documents})


def pinned(versions: Mapping[str, int]) -> dict[Layer, int]:
    """The layers behind the paths that a deployment pinned, lowest first; raises BadInput where one is none."""
    found = {Layer.at(path): version for path, version in versions.items()}
    return dict(sorted(found.items(), key=lambda one: one[0].height))


def layers_to_read(environment: Environment, versions: Mapping[str, int] | None) -> dict[Layer, int | None]:
    """What an environment's config is read from, lowest first, each with its version.

    Those that a deployment pinned; without any, the newest (None) of what the environment inherits.
    """
    if versions is None:
        return dict.fromkeys(layers_of(environment.project, environment.name, environment.inherits))
    return {**pinned(versions)}


def told(versions: Mapping[str, int]) -> str:
    """Pinned versions as people are told: `develop 3, login 1`; layers that were not there are left out."""
    return ", ".join(f"{layer.name} {version}" for layer, version in pinned(versions).items() if version) or "empty"


def _check_together(layers: Iterable[Layer]) -> None:
    """Raise BadInput (`bad_layers`) unless these can be the layers of one environment."""
    found = list(layers)
    alone = any(layer.tier is Tier.PRODUCTION for layer in found)
    if (alone and len(found) > 1) or len({layer.project for layer in found}) > 1:
        raise BadInput(
            f"{', '.join(map(str, found))} do not belong together.",
            code="bad_layers",
            hint="Production inherits nothing, and no project inherits from another.",
        )
