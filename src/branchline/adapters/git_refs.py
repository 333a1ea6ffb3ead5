"""What a ref or the beginning of a commit means in a mirror, and what to say where it means nothing."""

from __future__ import annotations

import difflib
import re

from branchline.adapters.git_mirror import Mirror
from branchline.domain.environment import BRANCH, TAG, short
from branchline.domain.errors import BadInput

_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|^@$|(^|/)[.-]|/$|\.$|\.lock(/|$)")


def find(mirror: Mirror, ref: str) -> tuple[str, str, str]:
    """Full name, commit and subject of a ref; a branch is preferred to a tag."""
    full = [ref] if ref.startswith((BRANCH, TAG)) else [BRANCH + ref, TAG + ref]
    if ref and not _BAD_REF.search(ref) and len(ref) < 4000:
        request = "".join(f"{name}^{{commit}}\n" for name in full).encode()
        answer = mirror.ask("cat-file", "--batch", stdin=request, limit=32 * 1024 * 1024).output
        for name in full:
            commit, rest = next_commit(answer)
            if commit is not None:
                return name, *commit
            answer = rest
    raise _unknown_ref(mirror, ref)


def next_commit(batch: bytes) -> tuple[tuple[str, str] | None, bytes]:
    """The first commit (id, subject) of what `cat-file --batch` said, or None where it was missing; and the rest."""
    header, _, rest = batch.partition(b"\n")
    found = re.fullmatch(rb"([0-9a-f]{40}) commit (\d+)", header)
    if found is None:
        return None, rest
    size = int(found[2])
    message = rest[:size].partition(b"\n\n")[2].lstrip(b"\n").partition(b"\n\n")[0]
    words = " ".join(message.decode("utf-8", "replace").split())
    subject = "".join(sign for sign in words if sign.isprintable())
    return (found[1].decode(), subject if len(subject) <= 200 else subject[:199] + "…"), rest[size + 1 :]


def reachable(mirror: Mirror, ref: str, tip: str, beginning: str) -> tuple[str, str]:
    """The one commit that begins so and is an ancestor of the tip: its full name and subject."""
    if len(beginning) == 40:
        candidates = [beginning]
    else:
        candidates = mirror.ask("rev-parse", f"--disambiguate={beginning}").output.decode().split()
    request = "".join(f"{name}^{{commit}}\n" for name in candidates).encode()
    answer = mirror.ask("cat-file", "--batch", stdin=request, limit=32 * 1024 * 1024).output if candidates else b""
    found = []
    for name in candidates:
        commit, answer = next_commit(answer)
        # An annotated tag that begins so would be peeled to its commit: that is not what was named.
        if commit is None or commit[0] != name:
            continue
        if mirror.ask("merge-base", "--is-ancestor", name, tip).exit_code == 0:
            found.append(commit)
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(
            f"{beginning} is the beginning of {len(found)} commits.", code="unknown_commit", hint="Give more digits."
        )
    raise BadInput(
        f"Commit {beginning[:12]} is not part of {short(ref)}.",
        code="unknown_commit",
        hint=f"It points to {tip[:12]} now. Push the commit first, or name a ref that holds it.",
    )


def _unknown_ref(mirror: Mirror, ref: str) -> BadInput:
    listed = mirror.ask("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags").output.decode().split("\n")
    branches = [name.removeprefix(BRANCH) for name in listed if name.startswith(BRANCH)]
    tags = [name.removeprefix(TAG) for name in listed if name.startswith(TAG)]
    name = ref.removeprefix(BRANCH).removeprefix(TAG)
    shown = name if len(name) <= 80 else name[:80] + "…"
    return BadInput(
        f"The repository has no branch or tag {shown!r}.", code="unknown_ref", hint=_suggest(name, branches, tags)
    )


def _suggest(wanted: str, branches: list[str], tags: list[str]) -> str:
    """What a person may have meant who named a ref that is not there, and what there is."""
    if not branches and not tags:
        return "The repository is empty: push a commit first."
    hints = []
    if near := difflib.get_close_matches(wanted[:200], [*branches, *tags][:5000], n=3, cutoff=0.6):
        hints.append(f"Did you mean {' or '.join(near)}?")
    for what, names in (("branch", branches), ("tag", tags)):
        if names:
            some = ", ".join(names[:8])
            hints.append(f"{len(names)} {what}{'' if len(names) == 1 else 'es' if what == 'branch' else 's'}: {some}")
            hints[-1] += ", …" if len(names) > 8 else "."
    return " ".join(hints)


def unknown_commit(commit: str) -> BadInput:
    return BadInput(
        f"Commit {commit[:40]!r} is not known here.", code="unknown_commit", hint="Deploy its branch or tag again."
    )
