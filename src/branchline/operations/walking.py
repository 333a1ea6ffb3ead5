"""The register read in its order, some rows at a time: no transaction lasts longer than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from branchline.domain.chain import Link, Seal, by_turns
from branchline.records import Store

BATCH = 2000
"""Rows that are read at a time: some two megabytes."""

_LOWEST = -(2**63)
"""Whoever gets at the tables can write rows with numbers below 1, too."""


def in_order(store: Store, after: int) -> Iterator[Link | Seal]:
    """The rows after a number that there are now, each seal right after its row.

    Seals of rows that are missing come where these would be. While some rows are looked at, the next are being read.
    """
    with store.transaction() as records:
        newest, head = records.register.newest_seal(), records.register.head()  # in this order: it seals what is there
    last = max(newest.seq if newest else 0, head.seq if head else 0)
    after = after or _LOWEST
    if after >= last:
        return

    def read(behind: int) -> tuple[list[Link], list[Seal], int]:
        with store.transaction() as records:
            links = records.register.links(behind, last, BATCH)
            upto = links[-1].seq if len(links) == BATCH else last
            return links, records.register.seals(behind, upto), upto

    with ThreadPoolExecutor(1, "register") as reader:
        reading = reader.submit(read, after)
        while True:
            links, seals, upto = reading.result()
            if upto < last:
                reading = reader.submit(read, upto)
            yield from by_turns(links, seals) if seals else links
            if upto >= last:
                return
