"""The ledger of config: every change written down before and after, so that who did what is known after any crash."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from branchline.config_records import ConfigChange, Done
from branchline.domain.access import Actor
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
        self, actor: Actor, project: Project, layer: Layer, changes: Mapping[str, Change], expected: int | None
    ) -> int:
        """Change a layer, check-and-set; return its version.

        Without an expected version, what others do to other keys meanwhile is kept. Raises Conflict
        (`config_changed`) and what the store raises; nothing was written then, unless it is PlatformBroke.
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

    def _write(self, actor: Actor, project: Project, layer: Layer, changes: Mapping[str, Change], base: int) -> int:
        keys, started = {key: _done(one) for key, one in changes.items()}, datetime.now(UTC)
        with self._store.transaction() as records:
            begun = records.config.begin(project, layer, base, actor, keys)
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
                return version
            ended = records.config.end(begun, version)
            if ended is None and all(one.version != version for one in records.config.of(layer)):
                # It took so long that whoever settled took us for dead.
                again = records.config.begin(project, layer, base, actor, keys, at=started)
                ended = records.config.end(again, version)
            if ended is not None:
                self._tell(records, ended)
        return version

    def versions(self, layer: Layer) -> list[tuple[Written, ConfigChange | None]]:
        """The versions that the store knows of, newest first, each with the change that made it, where we know it."""
        self.settle(layer)
        with self._store.transaction() as records:
            known = {change.version: change for change in records.config.of(layer)}
        return [(one, _made_by(known.get(one.version), one)) for one in self._writer.versions(layer)]

    def settle_all(self) -> None:
        """Settle every layer that needs it, so that the register lacks no change for long. Raises PlatformBroke."""
        for layer in {change.layer for change in self._unsettled()}:
            self.settle(layer)

    def settle(self, layer: Layer) -> None:
        """Find out what became of changes whose writer was killed, or was given no answer."""
        if not any(change.layer == layer for change in self._unsettled()):
            return
        written = {one.version: one for one in self._writer.versions(layer)}
        with self._store.transaction() as records:
            made = {
                change.version
                for change in records.config.of(layer)
                if _made_by(change, written.get(change.version or 0))
            }
            left = [change for change in records.config.unfinished() if change.layer == layer]
            for base in sorted({change.base for change in left}):
                rivals = [change for change in left if change.base == base]
                one = None if base + 1 in made else written.get(base + 1)
                if all(_is_over(change) for change in rivals):
                    self._settle(records, rivals, one)

    def _unsettled(self) -> list[ConfigChange]:
        with self._store.transaction() as records:
            return [change for change in records.config.unfinished() if _is_over(change)]

    def _settle(self, records: Records, rivals: list[ConfigChange], made: Written | None) -> None:
        """Of those who wrote onto one version the store has let in one, or none."""
        able = [change for change in rivals if _made_by(change, made)]
        if made is not None and len(rivals) == len(able) == 1:
            if (ended := records.config.end(rivals[0].id, made.version)) is not None:
                self._tell(records, ended)
            return
        forgotten = [records.config.forget(change.id) for change in rivals]
        if made is not None and able and any(forgotten):
            layer, names = rivals[0].layer, sorted({change.actor for change in able})
            detail = {"version": made.version, "by_one_of": names}
            records.register.add(AuditEvent(Kind.CONFIG_CHANGED, "platform", layer.project, layer.name, detail=detail))

    def _tell(self, records: Records, change: ConfigChange) -> None:
        """The change's line in the register."""
        keys = {done: sorted(key for key, what in change.keys.items() if what is done) for done in Done}
        layer = change.layer
        detail = {"version": change.version, **{str(done): keys[done] for done in Done}}
        event = AuditEvent(Kind.CONFIG_CHANGED, change.actor, layer.project, layer.name, detail=detail)
        records.register.add(replace(event, proof=change.proof, source=change.source))


def _is_over(change: ConfigChange) -> bool:
    """Whether nobody can be at it any more."""
    return datetime.now(UTC) - change.at > _UNDER_WAY


def _made_by(change: ConfigChange | None, written: Written | None) -> ConfigChange | None:
    """The change, unless the version of its number is another store's, or was made when nobody was at it."""
    return change if change and written and abs(change.at - written.at) < _APART else None


def _done(change: Change) -> Done:
    if change is HIDDEN:
        return Done.HIDDEN
    return Done.SET if isinstance(change, Secret) else Done.REMOVED
