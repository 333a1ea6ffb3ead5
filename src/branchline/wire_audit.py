"""Messages about the register, shared by server and CLI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field

from branchline.domain.audit import Recorded
from branchline.domain.chain import Check, Fault
from branchline.message import Wire


class AuditLine(Wire):
    """Who did what to what, and what came of it. `id` is the number of the row in the chain."""

    id: int
    at: datetime
    kind: str
    actor: str
    project: str | None
    environment: str | None
    deployment: int | None
    detail: dict[str, Any]
    proof: str = Field("", description="How the actor proved who they are.")
    source: str = Field("", description="The network address that the request came from.")

    @classmethod
    def of(cls, line: Recorded) -> AuditLine:
        """The same, as a message."""
        return cls(**vars(line))


@dataclass(frozen=True)
class AuditPage:
    """Part of the register, newest first: what is answered as a list, with a `Link` to the part that follows.

    There may be fewer lines than asked for, or none, although `next` says before which number to go on: what no index
    leads to is looked for in so many rows at a time.
    """

    items: Sequence[AuditLine]
    next: int | None = None


class RowFault(Wire):
    """What is wrong with the rows from `row` to `last`."""

    what: str
    row: int
    last: int
    text: str

    @classmethod
    def of(cls, fault: Fault) -> RowFault:
        """The same, as a message."""
        return cls(what=fault.what, row=fault.row, last=fault.last, text=fault.text)

    def __str__(self) -> str:
        rows = f"row {self.row}" if self.row == self.last else f"rows {self.row} to {self.last}"
        return f"{rows} {self.what}: {self.text}"


class Verification(Wire):
    """What a check of the register found."""

    rows: int
    seals: int
    head: int = Field(description="The number of the newest row.")
    hash: str = Field(description="Its hash, in hex. Note both elsewhere: a later check can be held against them.")
    sealed: int = Field(description="The newest row that a good seal covers.")
    found: int = Field(description="How many faults there are; not all are listed where there are very many.")
    faults: list[RowFault]

    @classmethod
    def of(cls, check: Check, faults: Sequence[Fault]) -> Verification:
        """What came of a check, once it has ended."""
        head = check.head
        return cls(
            rows=check.rows,
            seals=check.seals,
            head=head.seq,
            hash=head.hash.hex(),
            sealed=check.sealed,
            found=check.found,
            faults=[RowFault.of(fault) for fault in faults],
        )


class VerificationStep(Wire):
    """How far a check came; the last step has what it found."""

    rows: int
    done: Verification | None = None


class RegisterKey(Wire):
    """A version of the key that the register's head is signed with."""

    version: int
    public_key: str = Field(description="PEM.")
