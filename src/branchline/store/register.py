"""The register, in SQL: lines are added to what comes in, and read from what the keeper has chained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from branchline.domain.audit import ENDS, AuditEvent, Kind, Lines, Recorded, Wanted
from branchline.domain.chain import Head, Link, Seal
from branchline.store import tables as t

WINDOW = 10_000
"""Rows that one page looks at to find what no index leads to; the next page goes on behind them."""

_KINDS = {kind.value: kind for kind in Kind}

_ROW = t.event.c
_SHOWN = [_ROW[name] for name in ("seq", "at", "kind", "actor", "project", "environment", "deployment", "detail")]
_SHOWN += [_ROW.proof, _ROW.source]
_SEALS = sa.select(t.seal.c.seq, t.seal.c.hash, t.seal.c.at, t.seal.c.key_version, t.seal.c.signature)

_BODY = """'{"at": "' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    || '", "id": ' || seq || ', "kind": ' || to_json(kind)::text
    || ', "actor": ' || to_json(actor)::text || ', "proof": ' || to_json(proof)::text
    || ', "detail": ' || detail::text || ', "source": ' || to_json(source)::text
    || ', "project": ' || coalesce(to_json(project)::text, 'null')
    || ', "deployment": ' || coalesce(deployment::text, 'null')
    || ', "environment": ' || coalesce(to_json(environment)::text, 'null') || '}'"""
"""The text that the columns of a row give, by other words than it was made with: in a third of the time."""

_LINKS = sa.text(
    f"SELECT seq, previous, body, hash, body = {_BODY} FROM register.event".replace(":", r"\:")  # noqa: S608 our own
    + " WHERE seq > :after AND seq <= :upto ORDER BY seq LIMIT :limit"
)


class SqlRegister:
    """Port `Register`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, event: AuditEvent) -> None:
        """Write one line; it is in the register once the transaction has ended."""
        # Nothing is to be returned: we may write there, and not read.
        self._db.execute(t.incoming.insert().inline().values(**vars(event)))

    def page(self, wanted: Wanted, before: int | None, limit: int) -> Lines:
        """Newest first."""
        asked = vars(wanted).values()
        if any("\x00" in word for word in asked if isinstance(word, str)):  # what no database can keep
            return Lines([], None)
        reach = self._reach(wanted, before)
        leading, others = _conditions(wanted)
        # One condition leads, by its index; of what it leads to, so many are looked at, whatever else is asked for.
        window = sa.select(*_SHOWN).where(*reach, *leading).order_by(_ROW.seq.desc())
        if others:
            rows = window.limit(WINDOW).subquery()
            query = sa.select(rows).where(*(condition(rows.c) for condition in others)).order_by(rows.c.seq.desc())
        else:
            query = window
        found = [_recorded(row) for row in self._db.execute(query.limit(limit + 1))]
        if len(found) > limit:
            return Lines(found[:limit], found[limit - 1].id)
        return Lines(found, self._end_of_window(window) if others else None)

    def head(self) -> Head | None:
        """The newest row."""
        row = self._db.execute(sa.select(_ROW.seq, _ROW.hash).order_by(_ROW.seq.desc()).limit(1)).first()
        return Head(*row) if row else None

    def links(self, after: int, upto: int, limit: int) -> list[Link]:
        """The rows after a number and up to another, in their order."""
        wanted = {"after": after, "upto": upto, "limit": limit}
        return [Link._make(row) for row in self._db.execute(_LINKS, wanted)]

    def seal(self, seal: Seal) -> None:
        """Keep a seal."""
        self._db.execute(t.seal.insert().inline().values(**vars(seal)))

    def seals(self, after: int, upto: int) -> list[Seal]:
        """Those of the rows after a number and up to another, in their order."""
        query = _SEALS.where(t.seal.c.seq > after, t.seal.c.seq <= upto).order_by(t.seal.c.seq, t.seal.c.id)
        return [Seal(*row) for row in self._db.execute(query)]

    def newest_seal(self) -> Seal | None:
        """That of the highest row."""
        row = self._db.execute(_SEALS.order_by(t.seal.c.seq.desc(), t.seal.c.id.desc()).limit(1)).first()
        return Seal(*row) if row else None

    def ended_since(self, after: int) -> bool:
        """Whether a deployment has ended in the rows after a number."""
        query = sa.select(sa.exists().where(_ROW.kind.in_(ENDS), _ROW.seq > after))
        return bool(self._db.execute(query).scalar())

    def _reach(self, wanted: Wanted, before: int | None) -> list[sa.ColumnElement[bool]]:
        """Between which numbers to look: times lead to rows, which were written in their order."""
        reach: list[sa.ColumnElement[bool]] = []
        if before is not None:
            reach.append(_ROW.seq < before)
        if wanted.until is not None:
            newest = sa.select(_ROW.seq).where(_ROW.at < wanted.until).order_by(_ROW.at.desc()).limit(1)
            reach += [_ROW.seq <= (self._db.execute(newest).scalar() or 0), _ROW.at < wanted.until]
        if wanted.since is not None:
            oldest = sa.select(_ROW.seq).where(_ROW.at >= wanted.since).order_by(_ROW.at).limit(1)
            first = self._db.execute(oldest).scalar()
            reach += [sa.false() if first is None else _ROW.seq >= first, _ROW.at >= wanted.since]
        return reach

    def _end_of_window(self, window: sa.Select[Any]) -> int | None:
        """The lowest number that was looked at; None where nothing is left to look at."""
        numbers = window.with_only_columns(_ROW.seq).offset(WINDOW - 1).limit(1)
        return self._db.execute(numbers).scalar()


def _recorded(row: Any) -> Recorded:
    line = Recorded(*row)
    return replace(line, kind=_KINDS.get(line.kind, line.kind))


def _conditions(wanted: Wanted) -> tuple[list[sa.ColumnElement[bool]], list[Any]]:
    """The condition whose index is used (it keeps to fewest rows, mostly), and the others, as functions of columns."""
    exact = [
        (name, value)
        for name in ("project", "environment", "actor", "kind")
        if (value := getattr(wanted, name)) is not None
    ]
    leading = [_ROW[name] == value for name, value in exact[:1]]
    others: list[Any] = [lambda c, name=name, value=value: c[name] == value for name, value in exact[1:]]
    if wanted.projects is not None:
        seen = list(wanted.projects)
        if wanted.project is None:
            others.append(lambda c: c.project.in_(seen))
        elif wanted.project not in seen:
            leading.append(sa.false())
    if wanted.text:
        words = wanted.text
        others.append(lambda c: _all_of(c).icontains(words, autoescape=True))
    return leading, others


def _all_of(c: Any) -> sa.ColumnElement[str]:
    """All that a line says, one after the other."""
    parts = (c.kind, c.actor, c.project, c.environment, sa.cast(c.deployment, sa.Text), sa.cast(c.detail, sa.Text))
    return sa.func.concat_ws(" ", *parts, c.proof, c.source)
