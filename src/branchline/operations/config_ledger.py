"""The ledger of config: every change written down before and after, so that who did what is known after any crash."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from branchline.config_records import ConfigChange, Done
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.config import Secret
from branchline.domain.errors import BranchlineError, Conflict, PlatformBroke
from branchline.domain.layers import HIDDEN, Change, Layer
from branchline.domain.project import Project
from branchline.ports import ConfigWriter, Written
from branchline.records import Records, Store

_PATIENCE = 10.0
"""Seconds for which a change that expects no version goes on against others who write the same layer."""

_UNDER_WAY = timedelta(minutes=1)
"""So long somebody may still be at it; after that, the store has answered or will not."""

_APART = timedelta(minutes=2)
"""As much may lie between the time at which a change was begun and that of the version which it made."""


class ConfigLedger:
    """Writes layers. The store of config holds values and versions, our own tables who made them."""

    def __init__(self, store: Store, writer: ConfigWriter) -> None:
        self._store = store
        self._writer = writer

    def write(
        self, actor: str, project: Project, layer: Layer, changes: Mapping[str, Change], expected: int | None
    ) -> int:
        """Change a layer, check-and-set; return its version.

        Without an expected version, what others do to other keys meanwhile is kept. Raises Conflict
        (`config_changed`) and what the store raises; nothing was written then.
        """
        self.settle(layer)
        give_up = time.monotonic() + _PATIENCE
        while True:
            base = self._writer.keys(layer).version if expected is None else expected
            try:
                return self._write(actor, project, layer, changes, base)
            except Conflict:
                if expected is not None or time.monotonic() > give_up:
                    raise
            time.sleep(random.uniform(0.005, 0.1))  # noqa: S311 spreads writers out, guards nothing

    def _write(self, actor: str, project: Project, layer: Layer, changes: Mapping[str, Change], base: int) -> int:
        with self._store.transaction() as records:
            begun = records.config.begin(project, layer, base, actor, {key: _done(one) for key, one in changes.items()})
        try:
            version = self._writer.write(layer, changes, base)
        except PlatformBroke:
            raise  # it may have been written all the same: `settle` finds out
        except BranchlineError:
            with self._store.transaction() as records:
                records.config.forget(begun)
            raise
        with self._store.transaction() as records:
            if version == base:
                records.config.forget(begun)
            else:
                known = {change.id: change for change in records.config.of(layer)}
                self._end(records, known.get(begun), version)
        return version

    def versions(self, layer: Layer) -> list[tuple[Written, ConfigChange | None]]:
        """The versions that the store knows of, newest first, each with the change that made it, where we know it."""
        self.settle(layer)
        with self._store.transaction() as records:
            known = {change.version: change for change in records.config.of(layer)}
        return [(one, _made_by(known.get(one.version), one)) for one in self._writer.versions(layer)]

    def settle(self, layer: Layer) -> None:
        """Find out what became of changes whose writer was killed, or was given no answer."""
        with self._store.transaction() as records:
            left = [change for change in records.config.of(layer) if change.version is None]
        now = datetime.now(UTC)
        if not any(now - change.at > _UNDER_WAY for change in left):
            return
        written = {one.version: one for one in self._writer.versions(layer)}
        with self._store.transaction() as records:
            known = records.config.of(layer)
            made = {change.version for change in known}
            left = [change for change in known if change.version is None]
            for change in left:
                if now - change.at <= _UNDER_WAY:
                    continue
                one = written.get(change.base + 1)
                rivals = sum(other.base == change.base for other in left) > 1
                if one and change.base + 1 not in made and not rivals and _made_by(change, one):
                    self._end(records, change, one.version)
                else:
                    records.config.forget(change.id)

    def _end(self, records: Records, change: ConfigChange | None, version: int) -> None:
        """Note what a change made, once, with its line in the register."""
        if change is None or not records.config.end(change.id, version):
            return  # somebody who settled has found it out before us
        keys = {done: sorted(key for key, what in change.keys.items() if what is done) for done in Done}
        layer = change.layer
        detail = {"version": version, **{str(done): keys[done] for done in Done}}
        records.register.add(AuditEvent(Kind.CONFIG_CHANGED, change.actor, layer.project, layer.name, detail=detail))


def _made_by(change: ConfigChange | None, written: Written) -> ConfigChange | None:
    """The change, unless the version of its number is another store's, or was made when nobody was at it."""
    return change if change and abs(change.at - written.at) < _APART else None


def _done(change: Change) -> Done:
    if change is HIDDEN:
        return Done.HIDDEN
    return Done.SET if isinstance(change, Secret) else Done.REMOVED
