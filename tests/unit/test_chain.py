"""The chain: whatever is done to an exported register is found, and the right row is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline.domain.audit import Recorded
from branchline.domain.chain import (
    MOST_FAULTS,
    ORIGIN,
    Check,
    Fault,
    Head,
    Link,
    Seal,
    What,
    by_turns,
    canonical,
    hash_of,
    number_of,
    statement,
)
from branchline.domain.errors import BadInput, NotFound
from branchline.register_check import check as check_file
from branchline.register_file import BEGINNING, Opening, end_line, row_line, seal_line
from branchline.signatures import from_pem, signed_by, to_pem
from tests.fakes.notary import FakeNotary

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOTARY = FakeNotary()
GENUINE = signed_by([NOTARY.public])


def body(number: int, note: str = "") -> str:
    """The text of a row."""
    at = BEGAN + timedelta(microseconds=number)
    return Recorded(number, at, "stage.ended", "ada", "shop", None, 3, {"note": note}, "token x", "10.0.0.1").body


def chained(count: int, first: int = 1, previous: bytes = ORIGIN, note: str = "") -> list[Link]:
    """Rows as the register has them."""
    links = []
    for number in range(first, first + count):
        links.append(Link(number, previous, body(number, note), hash_of(previous, body(number, note))))
        previous = links[-1].hash
    return links


def sealed(link: Link, notary: FakeNotary = NOTARY) -> Seal:
    """The seal of a row."""
    version, signature = notary.sign(statement(Head(link.seq, link.hash), BEGAN))
    return Seal(link.seq, link.hash, BEGAN, version, signature)


def faults(items: Sequence[Link | Seal], **more: object) -> list[Fault]:
    """What a check finds."""
    check = Check(GENUINE, **more)  # type: ignore[arg-type]
    for item in items:
        check.link(item) if isinstance(item, Link) else check.seal(item)
    return check.end()


def named(found: Sequence[Fault]) -> list[tuple[What, int, int]]:
    return [(fault.what, fault.row, fault.last) for fault in found]


def test_the_canonical_form() -> None:
    at = datetime(2026, 3, 1, 14, 0, 0, 7, tzinfo=UTC)
    detail = {"bb": 1.5, "a": [True, None, 1e-7, 1e22], "z": {"é": 'x"\\\n\x01\u2028'}}
    line = Recorded(17, at, "stage.ended", "ada", None, None, None, detail, "", "")
    assert line.body == (
        '{"at": "2026-03-01T14:00:00.000007Z", "id": 17, "kind": "stage.ended", "actor": "ada", "proof": "", '
        '"detail": {"a": [true, null, 0.0000001, 10000000000000000000000], '
        '"z": {"é": "x\\"\\\\\\n\\u0001\u2028"}, "bb": 1.5}, '
        '"source": "", "project": null, "deployment": null, "environment": null}'
    )
    assert number_of(line.body) == 17
    assert number_of("{}") is None


def test_a_register_as_it_was_written() -> None:
    links = chained(20)
    check = Check(GENUINE, noted=[Head(7, links[6].hash), Head(20, links[-1].hash)])
    for item in by_turns(links, [sealed(links[4]), sealed(links[11]), sealed(links[19])]):
        check.link(item) if isinstance(item, Link) else check.seal(item)
    assert check.end() == []
    assert (check.rows, check.seals, check.sealed, check.head) == (20, 3, 20, Head(20, links[-1].hash))
    assert faults(links[10:], start=Head(10, links[9].hash)) == []


# --- one thing is done to it -----------------------------------------------------------------------------------------

rows = st.integers(3, 30)


@given(rows, st.data())
def test_an_edited_row(count: int, data: st.DataObject) -> None:
    links = chained(count)
    row = data.draw(st.integers(1, count))
    part = data.draw(st.sampled_from(["body", "number", "unreadable", "hash", "previous", "column"]))
    old = links[row - 1]
    links[row - 1] = {
        "body": old._replace(body=body(row, "nothing happened")),
        "number": old._replace(body=body(row + 100)),
        "unreadable": old._replace(body="nothing"),
        "hash": old._replace(hash=bytes(31) + b"x"),
        "previous": old._replace(previous=bytes(31) + b"x"),
        "column": old._replace(agrees=False),
    }[part]
    found = faults(links)
    assert [(fault.row, fault.last) for fault in found] == [(row, row)]
    assert found[0].what is (What.REORDERED if part == "number" else What.EDITED)


@given(rows, st.data())
def test_an_edited_row_whose_hash_was_made_anew(count: int, data: st.DataObject) -> None:
    links = chained(count)
    row = data.draw(st.integers(1, count - 1))
    text, old = body(row, "nothing happened"), links[row - 1]
    links[row - 1] = old._replace(body=text, hash=hash_of(old.previous, text))
    assert named(faults(links)) == [(What.EDITED, row, row)]


@given(rows, st.data())
def test_everything_written_anew_from_a_row_on(count: int, data: st.DataObject) -> None:
    """Only what is signed, or noted elsewhere, tells of it."""
    links = chained(count)
    row = data.draw(st.integers(2, count))
    forged = [*links[: row - 1], *chained(count - row + 1, row, links[row - 2].hash, "nothing happened")]
    assert faults(forged) == []
    before, after = sealed(links[row - 2]), sealed(links[-1])
    assert named(faults([*by_turns(forged, [before, after])])) == [(What.REWRITTEN, row, count)]
    assert named(faults(forged, noted=[Head(count, links[-1].hash)])) == [(What.REWRITTEN, 1, count)]


@given(rows, st.data())
def test_deleted_rows(count: int, data: st.DataObject) -> None:
    links = chained(count)
    first = data.draw(st.integers(1, count - 1))
    last = data.draw(st.integers(first, count - 1))
    assert named(faults(links[: first - 1] + links[last:])) == [(What.DELETED, first, last)]


@given(rows, st.data())
def test_a_deleted_row_with_all_later_ones_renumbered(count: int, data: st.DataObject) -> None:
    links = chained(count)
    row = data.draw(st.integers(1, count - 1))
    shifted = [link._replace(seq=link.seq - 1) for link in links[row:]]
    assert named(faults(links[: row - 1] + shifted)) == [(What.REORDERED, row, row)]


@given(rows, st.booleans(), st.booleans(), st.data())
def test_an_inserted_row(count: int, renumbered: bool, hashed: bool, data: st.DataObject) -> None:
    links = chained(count)
    row = data.draw(st.integers(2, count))
    previous, text = links[row - 2].hash, body(row, "forged")
    forged = Link(row, previous, text, hash_of(previous, text) if hashed else bytes(32))
    later = [link._replace(seq=link.seq + 1) if renumbered else link for link in links[row - 1 :]]
    found = faults([*links[: row - 1], forged, *later])
    assert {(fault.row, fault.last) for fault in found} == {(row, row)}
    assert What.INSERTED in {fault.what for fault in found}


@pytest.mark.parametrize("seq", [0, -5])
def test_a_row_before_the_first(seq: int) -> None:
    links = chained(5)
    assert named(faults([links[0]._replace(seq=seq), *links])) == [(What.INSERTED, seq, seq)]


def test_a_row_after_the_last() -> None:
    links = chained(5)
    foreign = Link(6, bytes(31) + b"x", body(6), bytes(32))
    assert named(faults([*links, foreign])) == [(What.INSERTED, 6, 6)]


@given(rows, st.data())
def test_two_rows_change_places(count: int, data: st.DataObject) -> None:
    links = chained(count)
    one = data.draw(st.integers(1, count - 1))
    other = data.draw(st.integers(one + 1, count))
    swapped = links.copy()
    swapped[one - 1], swapped[other - 1] = links[other - 1], links[one - 1]
    # as lines of a file
    found = faults(swapped)
    assert {fault.what for fault in found} <= {What.REORDERED, What.INSERTED}
    assert {one, other} & {fault.row for fault in found}
    # as rows of a table, whose numbers are exchanged
    renumbered = [link._replace(seq=number) for number, link in enumerate(swapped, 1)]
    found = faults(renumbered)
    assert {fault.what for fault in found} == {What.REORDERED}
    assert {fault.row for fault in found} == {one, other}


@given(rows, st.data())
def test_a_truncated_register(count: int, data: st.DataObject) -> None:
    links = chained(count)
    left = data.draw(st.integers(0, count - 1))
    seal = sealed(links[-1])
    assert named(faults([*links[:left], seal])) == [(What.TRUNCATED, left + 1, count)]
    assert named(faults(links[:left], noted=[Head(count, links[-1].hash)])) == [(What.TRUNCATED, left + 1, count)]


def test_forged_seals() -> None:
    links = chained(9)
    other = sealed(links[4], FakeNotary())
    assert named(faults([*by_turns(links, [other])])) == [(What.FORGED, 5, 5)]
    moved = replace(sealed(links[4]), seq=6)
    assert named(faults([*by_turns(links, [moved])])) == [(What.FORGED, 6, 6)]
    cut = replace(sealed(links[4]), signature=b"x")
    assert named(faults([*by_turns(links, [cut])])) == [(What.FORGED, 5, 5)]


def test_several_rows_are_each_named() -> None:
    links = chained(30)
    links[4] = links[4]._replace(body=body(5, "x"))
    links[5] = links[5]._replace(body=body(6, "x"))
    links[19] = links[19]._replace(agrees=False)
    del links[9:11]
    assert named(faults(links)) == [
        (What.EDITED, 5, 5),
        (What.EDITED, 6, 6),
        (What.DELETED, 10, 11),
        (What.EDITED, 20, 20),
    ]


def test_so_many_faults_are_told_and_all_are_counted() -> None:
    check = Check(GENUINE)
    for link in chained(MOST_FAULTS + 20):
        check.link(link._replace(agrees=False))
    assert len(check.end()) == MOST_FAULTS
    assert check.found == MOST_FAULTS + 20


# --- as files --------------------------------------------------------------------------------------------------------


def written(path: Path, links: Sequence[Link], seals: Sequence[Seal] = (), start: Head = BEGINNING) -> Path:
    """An export."""
    lines = [Opening(start, {1: to_pem(NOTARY.public)}).line]
    lines += [row_line(one) if isinstance(one, Link) else seal_line(one) for one in by_turns(links, seals)]
    path.write_text("".join([*lines, end_line(Head(links[-1].seq, links[-1].hash))]), encoding="utf-8")
    return path


@pytest.fixture
def export(tmp_path: Path) -> Path:
    links = chained(12, note="ü\u2028\x85")
    return written(tmp_path / "register.jsonl", links, [sealed(links[5]), sealed(links[11])])


def test_an_export_is_checked_with_the_public_key_alone(export: Path) -> None:
    done = check_file(export, from_pem(f"# version 1\n{to_pem(NOTARY.public)}"))
    assert (done.faults, done.check.rows, done.check.seals, done.check.sealed, done.after) == ([], 12, 2, 12, 0)
    assert check_file(export, None).faults == []
    other = check_file(export, [FakeNotary().public])
    assert named(other.faults) == [(What.FORGED, 6, 6), (What.FORGED, 12, 12)]


def test_seals_of_older_keys_stay_good(tmp_path: Path) -> None:
    links, notary = chained(6), FakeNotary()
    old = sealed(links[2], notary)
    notary.rotate()
    path = written(tmp_path / "x.jsonl", links, [old, sealed(links[5], notary)])
    assert check_file(path, list(notary.keys().values())).faults == []
    assert named(check_file(path, [notary.public]).faults) == [(What.FORGED, 3, 3)]


@given(cut=st.integers(1, 10**6))
def test_an_export_that_was_cut_anywhere(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    links = chained(8)
    path = written(tmp_path_factory.mktemp("cut") / "x.jsonl", links, [sealed(links[7])])
    whole = path.read_bytes()
    left = whole[: 1 + cut % (len(whole) - 2)]
    path.write_bytes(left)
    if b"\n" not in left and left + b"\n" != whole[: len(left) + 1]:
        with pytest.raises(BadInput, match="no export"):
            check_file(path, [NOTARY.public])
        return
    rows = [line for line in left.split(b"\n") if line in whole.split(b"\n")[1:-1] and b'{"row"' in line]
    (found,) = check_file(path, [NOTARY.public]).faults
    assert (found.what, found.row) == (What.TRUNCATED, len(rows) + 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: "nonsense\n",
        lambda line: json.dumps({"row": {**json.loads(line)["row"], "hash": "xy"}}) + "\n",
        lambda line: json.dumps({"row": {**json.loads(line)["row"], "seq": None}}) + "\n",
        lambda line: "[" * 100_000 + "\n",
    ],
)
def test_a_line_that_cannot_be_read(export: Path, damage: Callable[[str], str]) -> None:
    lines = export.read_text(encoding="utf-8").split("\n")
    lines[4] = damage(lines[4]).rstrip("\n")
    export.write_text("\n".join(lines), encoding="utf-8")
    (found,) = check_file(export, None).faults
    assert (found.what, found.row) == (What.TRUNCATED, 4)
    assert "line 5" in found.text


def test_texts_that_no_database_can_hold(export: Path) -> None:
    lines = export.read_text(encoding="utf-8").split("\n")
    told = json.loads(lines[3])
    told["row"]["body"] += "\ud800"
    lines[3] = json.dumps(told)
    export.write_text("\n".join(lines), encoding="utf-8")
    assert named(check_file(export, None).faults) == [(What.EDITED, 3, 3)]


def test_an_archive_is_checked_as_a_whole(tmp_path: Path) -> None:
    links = chained(9)
    for first, last in ((1, 4), (5, 6), (7, 9)):
        start = Head(first - 1, links[first - 2].hash) if first > 1 else BEGINNING
        some = links[first - 1 : last]
        written(tmp_path / f"register-{first:012}-{last:012}.jsonl", some, [sealed(some[-1])], start)
    assert check_file(tmp_path, None).faults == []
    (tmp_path / "register-000000000005-000000000006.jsonl").unlink()
    assert named(check_file(tmp_path, None).faults) == [(What.DELETED, 5, 6)]
    (tmp_path / "register-000000000001-000000000004.jsonl").unlink()
    rest = check_file(tmp_path, None)
    assert (rest.after, rest.faults) == (6, [])


def test_what_is_no_register(tmp_path: Path) -> None:
    for text in ("", "{}\n", '{"format": "something:1", "after": 0, "previous": "", "keys": []}\n', "\x00\n"):
        path = tmp_path / "x.jsonl"
        path.write_text(text)
        with pytest.raises(BadInput, match="no export of a register"):
            check_file(path, None)
    with pytest.raises(NotFound):
        check_file(tmp_path / "nothing", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no segment"):
        check_file(tmp_path / "empty", None)
    for pem in ("", "-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----\n", "-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(BadInput, match="no Ed25519 public key"):
            from_pem(pem)


def test_the_canonical_form_sorts_by_length_first() -> None:
    assert canonical({"bb": 1, "é": 2, "a": 3, "ab": -4}) == '{"a": 3, "ab": -4, "bb": 1, "é": 2}'
