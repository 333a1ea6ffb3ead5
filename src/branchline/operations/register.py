"""Reading the register, checking it, taking it out; and the platform's own pulse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from branchline.domain.access import Actor, Permission, keys_permission
from branchline.domain.audit import Recorded, Wanted
from branchline.domain.chain import ORIGIN, Check, Head, Link
from branchline.domain.environment import tier_of
from branchline.domain.errors import NotFound, PlatformBroke
from branchline.operations.gate import Gate
from branchline.operations.walking import in_order
from branchline.ports import Notary
from branchline.records import Store
from branchline.register_file import Opening, end_line, row_line, seal_line
from branchline.signatures import signed_by, to_pem
from branchline.wire import MetricsView
from branchline.wire_audit import AuditLine, AuditPage, RegisterKey, Verification, VerificationStep

_STEP = 50_000
_BLOCK = 500
"""Lines of an export that are sent at a time."""


class Audit:
    """The register, for those who may read."""

    def __init__(self, store: Store, gate: Gate, notary: Notary) -> None:
        self._store = store
        self._gate = gate
        self._notary = notary

    def list(self, actor: Actor, wanted: Wanted, before: int | None = None, limit: int = 100) -> AuditPage:
        """Newest first: of a project, or of all that the actor may read."""
        wanted = replace(wanted, projects=self._gate.among(actor, Permission.READ, wanted.project))
        with self._store.transaction() as records:
            found = records.register.page(wanted, before, limit)
        shown = [_shown(actor, line, wanted.text or "") for line in found.items]
        return AuditPage(items=[AuditLine.of(line) for line in shown if line], next=found.next)

    def verify(self, actor: Actor) -> Iterator[VerificationStep]:
        """Check every row and seal; tells how far it is, and in the last step what it found."""
        self._gate.require(actor, Permission.PLATFORM)
        noted = self._notary.noted()
        check = Check(signed_by(self._notary.keys().values()), noted=[noted] if noted else [])
        return self._steps(check)

    def export(self, actor: Actor, after: int = 0) -> Iterator[str]:
        """The rows after a number as `register_file` describes them, in pieces that end with a newline.

        Raises NotFound (`unknown_row`) where there is no such row.
        """
        self._gate.require(actor, Permission.PLATFORM)
        opening = Opening(self._start(after), {key.version: key.public_key for key in self._keys()})
        return self._written(opening)

    def keys(self, actor: Actor) -> Sequence[RegisterKey]:
        """The public keys that the head was ever signed with."""
        self._gate.among(actor, Permission.READ)
        return self._keys()

    def _keys(self) -> Sequence[RegisterKey]:
        return [RegisterKey(version=one, public_key=to_pem(raw)) for one, raw in sorted(self._notary.keys().items())]

    def _start(self, after: int) -> Head:
        if not after:
            return Head(0, ORIGIN)
        with self._store.transaction() as records:
            there = records.register.links(after - 1, after, 1)
        if not there or there[0].seq != after:
            raise NotFound(
                f"The register has no row {after}.",
                code="unknown_row",
                hint="Was it truncated? `branchline audit verify` says so.",
            )
        return Head(after, there[0].hash)

    def _steps(self, check: Check) -> Iterator[VerificationStep]:
        for item in in_order(self._store, 0):
            if isinstance(item, Link):
                check.link(item)
                if check.rows % _STEP == 0:
                    yield VerificationStep(rows=check.rows)
            else:
                check.seal(item)
        faults = check.end()
        yield VerificationStep(rows=check.rows, done=Verification.of(check, faults))

    def _written(self, opening: Opening) -> Iterator[str]:
        yield opening.line
        head = opening.start
        block = []
        for item in in_order(self._store, opening.start.seq):
            if isinstance(item, Link):
                head = Head(item.seq, item.hash)
                block.append(row_line(item))
            else:
                block.append(seal_line(item))
            if len(block) >= _BLOCK:
                yield "".join(block)
                block.clear()
        block.append(end_line(head))
        yield "".join(block)


def _shown(actor: Actor, line: Recorded, text: str) -> Recorded | None:
    """The line as this actor may see it; None where only what they may not see has the text that they look for."""
    if line.environment is None or actor.may(keys_permission(tier_of(line.environment)), line.project):
        return line
    rest = line.for_those_without_keys
    return rest if rest == line or rest.holds(text) else None


class Pulse:
    """Whether the platform is well, and its numbers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def health(self) -> dict[str, str]:
        """Each part that the server needs: `ok`, or what is wrong with it."""
        try:
            self._store.ping()
        except PlatformBroke as error:
            return {"database": error.sentence}
        return {"database": "ok"}

    def metrics(self) -> MetricsView:
        """What is counted in the store."""
        with self._store.transaction() as records:
            deployments = records.deployments.count_by_state()
        return MetricsView(deployments=deployments, stages=self._store.stage_seconds())
