"""One deployment's whole story, top to bottom: who asked, what changed, each stage, what came of it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from branchline.cli.render import Style, counted, duration, is_terminal, moment, paint, printable, say, table
from branchline.domain.environment import short
from branchline.domain.layers import told

if TYPE_CHECKING:
    from branchline import wire, wire_changes

WIDTH = 80
"""Columns that the story keeps to where nobody says how wide the screen is."""

_LABEL = 10


def tell(deployment: wire.DeploymentView) -> None:
    """Print it."""
    say(paint(f"Deployment {deployment.id}: {deployment.project} → {deployment.environment}", Style.STRONG, sys.stdout))
    say()
    _facts(_asked(deployment))
    _heading("what changed")
    for line in _changes(deployment):
        say(line)
    if deployment.stages:
        say()
        table(("stage", "state", "took", "note"), [_stage(one) for one in deployment.stages], fold=_width())
    _heading("what came of it")
    _facts(_came_of_it(deployment))


def _asked(deployment: wire.DeploymentView) -> list[tuple[str, str | None]]:
    known = f" ({deployment.proof})" if deployment.proof else ""
    where = f" from {deployment.source}" if deployment.source else ""
    return [
        ("by", f"{deployment.actor}{known}{where}, through {deployment.trigger}"),
        ("reason", deployment.reason),
        ("asked for", moment(deployment.requested_at)),
        ("source", f"{short(deployment.ref)} at {deployment.commit}"),
        ("subject", deployment.subject),
    ]


def _came_of_it(deployment: wire.DeploymentView) -> list[tuple[str, str | None]]:
    failure = deployment.failure
    stopping = ", asked to stop" if deployment.cancel_requested and not deployment.state.final else ""
    return [
        ("state", deployment.state + (", live" if deployment.live else "") + stopping),
        ("outcome", deployment.outcome),
        ("failed at", deployment.failed_stage),
        ("failure", f"{failure.sentence} ({failure.code})" if failure else None),
        ("hint", failure.hint if failure else None),
        ("began", moment(deployment.started_at)),
        ("switched", moment(deployment.switched_at)),
        ("undone", moment(deployment.undone_at)),
        ("ended", moment(deployment.finished_at)),
        ("took", _took(deployment)),
        ("carried by", _carried_by(deployment)),
        ("release", str(deployment.release) if deployment.release else None),
        ("image", deployment.image),
        ("config", told(deployment.config) if deployment.config is not None else None),
        ("replaces", f"deployment {deployment.replaces}" if deployment.replaces else None),
        ("replaced", f"by deployment {deployment.replaced_by}" if deployment.replaced_by else None),
        ("superseded", f"by deployment {deployment.superseded_by}" if deployment.superseded_by else None),
        ("url", deployment.url),
    ]


def _took(deployment: wire.DeploymentView) -> str | None:
    if not deployment.finished_at:
        return None
    whole = duration((deployment.finished_at - deployment.requested_at).total_seconds())
    if not deployment.started_at:
        return whole
    return f"{whole}, of which it waited {duration((deployment.started_at - deployment.requested_at).total_seconds())}"


def _carried_by(deployment: wire.DeploymentView) -> str | None:
    if not deployment.runner:
        return None
    more = f", in attempt {deployment.attempts}" if deployment.attempts > 1 else ""
    return f"runner {deployment.runner}{more}"


def _stage(stage: wire.StageView) -> tuple[str, ...]:
    again = f"(attempt {stage.attempts})" if stage.attempts > 1 else ""
    took = duration(stage.seconds) if stage.seconds is not None else ""
    return stage.name, stage.state, took, " ".join(part for part in (stage.note, again) if part)


def _changes(deployment: wire.DeploymentView) -> Iterator[str]:
    changes = deployment.changes
    if changes is None:
        yield "It ended before that was found out." if deployment.state.final else "That is not known yet."
        return
    if changes.since is None:
        yield "Nothing was live here before, so there is nothing to compare with."
        return
    yield f"Since deployment {changes.since}, which was live at {changes.before[:12]}:"
    if changes.unknown:
        yield from _wrapped(f"Commits and migrations are not known: {changes.unknown}", 2)
    else:
        yield from _commits(changes)
        yield from _migrations(changes)
    yield from _config(changes)


def _commits(changes: wire_changes.ChangesView) -> Iterator[str]:
    if not changes.came.total and not changes.went.total:
        yield "  the same commit"
    for commits, words in ((changes.came, ""), (changes.went, ", of the release before, went")):
        if commits.total:
            yield f"  {counted(commits.total, 'commit')}{words}"
        for one in commits.newest:
            begin = f"    {one.sha[:8]}  {one.at.astimezone():%Y-%m-%d}  "
            yield from _wrapped(f"{one.subject} ({one.author})", len(begin), begin)
        if (older := commits.total - len(commits.newest)) > 0:
            yield f"    and {counted(older, 'older one')}"


def _migrations(changes: wire_changes.ChangesView) -> Iterator[str]:
    if changes.migrations_total:
        yield f"  {counted(changes.migrations_total, 'database migration')}"
    for one in changes.migrations:
        yield f"    {one.what.ljust(8)}  {printable(one.path)}"
    if (more := changes.migrations_total - len(changes.migrations)) > 0:
        yield f"    and {more} more"


def _config(changes: wire_changes.ChangesView) -> Iterator[str]:
    if changes.config_unknown:
        yield from _wrapped(f"Config keys are not known: {changes.config_unknown}", 2)
    elif not changes.config:
        yield "  the same config"
    for layer in changes.config:
        yield f"  config of {layer.layer}, version {layer.before or 'none'} → {layer.after or 'none'}"
        kinds = (("set", layer.set), ("changed", layer.changed), ("hidden", layer.hidden), ("removed", layer.removed))
        for what, keys in kinds:
            if keys:
                yield from _wrapped(", ".join(keys), 14, f"    {what.ljust(8)}  ")
        if layer.unknown:
            yield from _wrapped(f"Not known: {layer.unknown}", 4)
        elif not any(keys for _, keys in kinds):
            yield "    no key of it differs"


def _heading(text: str) -> None:
    say()
    say(paint(text.upper(), Style.DIM, sys.stdout))


def _facts(pairs: Sequence[tuple[str, str | None]]) -> None:
    for label, value in pairs:
        if value:
            first, *rest = _wrapped(value, _LABEL + 2, " " * (_LABEL + 2))
            say(paint(label.ljust(_LABEL), Style.DIM, sys.stdout) + first[_LABEL:])
            for line in rest:
                say(line)


def _wrapped(text: str, indent: int, begin: str | None = None) -> list[str]:
    """Lines that fit; what cannot be broken, as a digest or a path, stays whole, so that it can be copied."""
    return textwrap.wrap(
        printable(text),
        width=_width(),
        initial_indent=" " * indent if begin is None else begin,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _width() -> int:
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns) if is_terminal(sys.stdout) else WIDTH
