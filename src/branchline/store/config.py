"""The changes of config, in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from branchline.config_records import ConfigChange, Done
from branchline.domain.access import Actor
from branchline.domain.layers import Layer
from branchline.domain.project import Project
from branchline.store import tables as t


class SqlConfigChanges:
    """Port `ConfigChanges`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def begin(
        self,
        project: Project,
        layer: Layer,
        base: int,
        actor: Actor,
        keys: Mapping[str, Done],
        at: datetime | None = None,
    ) -> int:
        """Note that this is about to be written onto version `base`; now, or that it was `at` some time before."""
        new = t.config_change.insert().values(
            project_id=project.id,
            layer=layer.name,
            base=base,
            actor=actor.name,
            keys=dict(keys),
            proof=actor.proof,
            source=actor.source,
        )
        if at is not None:
            new = new.values(at=at)
        return int(self._db.execute(new.returning(t.config_change.c.id)).scalar_one())

    def end(self, change: int, version: int) -> ConfigChange | None:
        """Note the version that it made; return it, unless somebody has noted or forgotten it before.

        Another change of this version was made in a store that is no more.
        """
        mine = sa.select(t.config_change.c.project_id, t.config_change.c.layer).where(t.config_change.c.id == change)
        same = sa.tuple_(t.config_change.c.project_id, t.config_change.c.layer).in_(mine)
        other = t.config_change.c.id != change
        self._db.execute(t.config_change.delete().where(same, other, t.config_change.c.version == version))
        if not self._db.execute(t.config_change.update().where(_open(change)).values(version=version)).rowcount:
            return None
        return self._found(t.config_change.c.id == change)[0]

    def forget(self, change: int) -> bool:
        """It was refused: nothing was written. Whether nobody has noted or forgotten it before."""
        return bool(self._db.execute(t.config_change.delete().where(_open(change))).rowcount)

    def unfinished(self) -> list[ConfigChange]:
        """Those of all layers that did not end, oldest first."""
        return self._found(t.config_change.c.version.is_(None))[::-1]

    def of(self, layer: Layer) -> list[ConfigChange]:
        """Newest first, those that did not end included."""
        return self._found(t.project.c.name == layer.project, t.config_change.c.layer == layer.name)

    def _found(self, *conditions: sa.ColumnElement[bool]) -> list[ConfigChange]:
        query = (
            sa.select(t.config_change, t.project.c.name.label("project"))
            .join_from(t.config_change, t.project)
            .where(*conditions)
            .order_by(t.config_change.c.id.desc())
        )
        return [
            ConfigChange(
                id=row.id,
                layer=Layer(row.project, row.layer),
                base=row.base,
                version=row.version,
                actor=row.actor,
                at=row.at,
                keys={key: Done(done) for key, done in row.keys.items()},
                proof=row.proof,
                source=row.source,
            )
            for row in self._db.execute(query)
        ]


def _open(change: int) -> sa.ColumnElement[bool]:
    return (t.config_change.c.id == change) & t.config_change.c.version.is_(None)
