"""`audit`: read the register, check it, take it out, archive it."""

from __future__ import annotations

import contextlib
import json as notation
import os
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from branchline.cli.arguments import Json
from branchline.cli.client import connect
from branchline.cli.lazily import wire_audit
from branchline.cli.render import Style, as_json, counted, is_terminal, moment, note, paint, printable, say, sign, table
from branchline.domain.errors import BadInput, PlatformBroke

if TYPE_CHECKING:
    from branchline.domain.chain import Head

app = typer.Typer()
audit = typer.Typer(help="Read the register of who did what, check it, and take it out.", no_args_is_help=True)
app.add_typer(audit, name="audit")

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TAIL = 1000

When = Annotated[str | None, typer.Option(metavar="TIME", help="A time (ISO 8601), or how long ago, like 30m, 2h, 7d.")]


@audit.command("list")
def list_(
    project: Annotated[str | None, typer.Option(help="Only what concerns this project.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only environments of this name.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, like deployment.finished.")] = None,
    since: When = None,
    until: When = None,
    text: Annotated[str | None, typer.Option(help="Only lines that hold this, whatever its case.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only those with a lower number.")] = None,
    json: Json = False,
) -> None:
    """List audit events, newest first."""
    asked = {
        "project": project,
        "environment": environment,
        "actor": actor,
        "kind": kind,
        "since": _time(since),
        "until": _time(until),
        "text": text,
    }
    found: list[wire_audit.AuditLine] = []
    following = before
    with connect() as client:
        while True:  # a page may look at many rows and find few
            wanted = limit - len(found)
            lines, following = client.get_page("audit", wire_audit.AuditLine, **asked, before=following, limit=wanted)
            found += lines
            if following is None or len(found) >= limit:
                break
    if json:
        as_json(found)
        return
    table(
        ("id", "at", "actor", "what", "where", "deployment", "detail"),
        [
            (
                str(line.id),
                moment(line.at),
                line.actor,
                line.kind,
                " ".join(part for part in (line.project, line.environment) if part),
                str(line.deployment or ""),
                notation.dumps(line.detail, ensure_ascii=False) if line.detail else "",
            )
            for line in found
        ],
    )
    if following is not None:
        note(f"There is more: --before {following}")


@audit.command()
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="An export, or the folder of an archive.", show_default="ask the platform"),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Public keys in PEM, as `audit keys` prints them.", show_default="the file's own"),
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(metavar="ROW:HASH", help="A head that you noted elsewhere; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Check that no row of the register was edited, deleted, inserted or moved, and that its seals are good.

    Without FILE the platform checks what it has; with it, the file is checked here, and no platform is asked. Ends with
    status 1 where something is found, and says which rows.
    """
    noted = [_head(one) for one in head or ()]
    if file is not None:
        found = _checked(file, key, noted)
    elif key or noted:
        hint = "`branchline audit export -o FILE`, then `branchline audit verify FILE` with these options."
        raise BadInput("--key and --head are for a FILE.", code="usage", hint=hint)
    else:
        found = _asked()
    if json:
        as_json(found)
    else:
        _tell(found)
    if found.found:
        raise typer.Exit(1)


@audit.command()
def export(
    file: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file; - is standard output.")] = "-",
    after: Annotated[int, typer.Option(min=0, help="Only rows after this one.")] = 0,
) -> None:
    """Write the whole register as JSON lines, which `audit verify FILE` checks anywhere."""
    with connect() as client, client.pieces("audit/export", after=after) as pieces:
        if file == "-":
            sys.stdout.flush()
            _copy(pieces, sys.stdout.buffer)
            return
        try:
            rows = _written(Path(file), pieces)
        except OSError as error:
            raise BadInput(
                f"{file} cannot be written: {error.strerror}.", code="file_unwritable", hint="Name another file, or -."
            ) from None
    note(f"Wrote the register up to row {rows} to {file}.")


@audit.command()
def archive(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the segments are; it is made where it is not.")],
    rows: Annotated[int, typer.Option(min=1, help="Rows that a segment has at the least, but for the last.")] = 100_000,
) -> None:
    """Write the sealed part of the register as files, going on where an earlier run ended.

    Each segment ends with a seal, and goes on from the one before. Nothing is taken out of the register.
    """
    from branchline.cli.audit_archive import Archive  # noqa: PLC0415 only here

    with Archive(folder, rows) as kept, connect() as client:
        with client.pieces("audit/export", after=kept.head.seq) as pieces:
            for name in kept.take(_lines(pieces)):
                say(name)
        note(f"The archive in {folder} goes up to row {kept.head.seq}.")


@audit.command()
def keys(json: Json = False) -> None:
    """Print the public keys that the register is sealed with, as PEM. Keep them where the platform cannot write."""
    with connect() as client:
        found = client.get_list("audit/keys", wire_audit.RegisterKey)
    if json:
        as_json(found)
        return
    for one in found:
        say(f"# version {one.version}\n{one.public_key.strip()}")


def _asked() -> wire_audit.Verification:
    """What the platform finds."""
    shown = is_terminal(sys.stderr)
    with connect() as client, client.pieces("audit/verification") as pieces:
        for line in _lines(pieces):
            step = wire_audit.VerificationStep.model_validate_json(line, extra="ignore")
            if step.done is not None:
                return step.done
            if shown:
                sys.stderr.write(f"\r{step.rows:,} rows")
    raise PlatformBroke(
        "The platform did not end its check.", code="check_broke_off", hint="Try again; the server's log says why."
    )


def _checked(file: Path, key: Path | None, noted: list[Head]) -> wire_audit.Verification:
    """What a check of files finds."""
    from branchline.register_check import check  # noqa: PLC0415 the only command that needs cryptography
    from branchline.signatures import from_pem  # noqa: PLC0415

    try:
        known = from_pem(key.read_text()) if key else None
    except (OSError, UnicodeDecodeError):
        raise BadInput(
            f"{key} cannot be read.", code="bad_public_key", hint="`branchline audit keys` prints them."
        ) from None
    checked = check(file, known, noted)
    if checked.after:
        note(f"It begins after row {checked.after}: what was before is not in it.")
    if known is None:
        note(f"Sealed with keys that the file names itself ({', '.join(checked.keys)}): --key checks against yours.")
    return wire_audit.Verification.of(checked.check, checked.faults)


def _tell(found: wire_audit.Verification) -> None:
    for fault in found.faults:
        say(f"{paint(sign('✗', 'x', sys.stdout), Style.BAD, sys.stdout)} {printable(str(fault))}")
    if more := found.found - len(found.faults):
        say(f"… and {more} more")
    mark = paint(sign("✓", "+", sys.stdout), Style.GOOD, sys.stdout)
    verdict = counted(found.found, "fault") + " in" if found.found else f"{mark} nothing is wrong with"
    say(f"{verdict} {counted(found.rows, 'row')} and {counted(found.seals, 'seal')}")
    say(f"  sealed up to row {found.sealed}; the head is {found.head}:{found.hash}")


def _written(file: Path, pieces: Iterable[bytes]) -> int:
    """Write beside the file, then move it there; the newest row. Nothing half is ever under its name."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            rows = _copy(pieces, out)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return rows


def _copy(pieces: Iterable[bytes], out: object) -> int:
    """Copy an export; the newest row. Raises PlatformBroke (`export_broke_off`) where its end is missing."""
    tail = b""
    for piece in pieces:
        out.write(piece)  # type: ignore[attr-defined]
        tail = (tail + piece)[-_TAIL:]
    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
        return int(notation.loads(tail.splitlines()[-1])["end"]["seq"])
    raise PlatformBroke(
        "The platform did not end its export.", code="export_broke_off", hint="Try again; the server's log says why."
    )


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _time(told: str | None) -> str | None:
    """A time as the API takes it."""
    if told is None:
        return None
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", told):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        return datetime.fromisoformat(told).astimezone().isoformat()
    except (ValueError, OverflowError):
        hint = "Write it like 2026-03-01, 2026-03-01T14:30 or 2026-03-01T14:30Z, or how long ago: 30m, 2h, 7d, 4w."
        raise BadInput(f"{told[:60]!r} is no time.", code="bad_time", hint=hint) from None


def _head(told: str) -> Head:
    from branchline.domain.chain import Head  # noqa: PLC0415

    if not (found := re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", told.strip())):
        hint = "Write it as `branchline audit verify` prints it: the number of a row, a colon, 64 hexadecimal digits."
        raise BadInput(f"{told[:100]!r} is no head.", code="bad_head", hint=hint)
    return Head(int(found[1]), bytes.fromhex(found[2]))
