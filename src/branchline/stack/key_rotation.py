"""Rotating keys while the platform runs: each step may be repeated, and files alone say which were done.

A run that was interrupted is gone on with by the next one, whatever line it ended at. Whoever logs in with a signing
key reads its file anew, so there is a time during which both must be good:

| step | NAME.pem | NAME.pub | NAME.next.pem | NAME.next.pub | the store lets in |
|---|---|---|---|---|---|
| before | old | old | | | old |
| a pair is made | old | old | new | new | old, then both |
| it is put in place | new | old | | new | both |
| the old one is forgotten | new | new | | new | both, then new |
| after | new | new | | | new |
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from branchline.adapters.identity import LIFETIME
from branchline.domain.errors import BadInput, Conflict, PlatformBroke, TimedOut
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import files, first_start, seal_keys
from branchline.stack.foreign_store import ForeignStore
from branchline.stack.key_files import EMBEDDED, OF_THE_SERVER, SEAL, SIGNING_KEYS
from branchline.stack.ledger import not_yours
from branchline.stack.openbao import OpenBao
from branchline.stack.openbao_rules import REGISTER_KEY
from branchline.stack.part import NotReady
from branchline.stack.restart import restart

REGISTER = "register"
"""What `keys rotate` calls the key that the register is sealed with: it lies in OpenBao, and in no file."""

LEARN_LIMIT = 15.0
GRACE = float(LIFETIME)
"""Seconds until nobody can be under way any more with a login that was signed with the old key."""


class Store(Protocol):
    """The config store, as far as keys are concerned."""

    def learn(self, name: str, key: Path, /) -> None:
        """Let in whoever signs with this private key, which will be NAME's; raises where it does not, or not yet."""

    def forget(self, name: str, /) -> str:
        """Let in nobody but whoever signs with NAME's key; returns what is left to do for that, mostly nothing."""


def rotate(settings: Settings, name: str, say: Callable[[str], None], grace: float = GRACE) -> None:
    """Rotate a key, or go on where an earlier run was interrupted; tell each step.

    Raises BadInput (`no_such_key`, `vault_is_external`), Refused (`not_your_platform`), Conflict (`rotation_runs`,
    `new_key_unknown`), and PlatformBroke where the platform is not up, or stays as it was (`not_rotated`).
    """
    if name not in {*SIGNING_KEYS, SEAL, REGISTER}:
        names = ", ".join([*SIGNING_KEYS, SEAL, REGISTER])
        raise BadInput(f"No key {name!r} can be rotated.", code="no_such_key", hint=f"There are: {names}.")
    layout = Layout.load(settings.home)
    keys = layout.home / "keys"
    if keys.stat().st_uid != os.geteuid():  # not even root: the platform could not read what root puts there
        raise not_yours(layout.home, keys)
    openbao = OpenBao(layout, first_start.account())
    if settings.vault_url and name == REGISTER:
        raise BadInput(
            "The register's key lies in a Vault of your own, where the platform may sign with it and no more.",
            code="vault_is_external",
            hint="Whoever runs it rotates it: bao write -f register-signer/keys/head/rotate",
        )
    if settings.vault_url and name in EMBEDDED:
        raise BadInput(
            f"The key {name} is for the embedded OpenBao, but the config store is a server of your own.",
            code="vault_is_external",
            hint="Rotate that server's keys with its own means.",
        )
    store: Store = ForeignStore(settings.vault_url) if settings.vault_url else Embedded(openbao)
    try:
        with files.locked(layout.run / "key-rotation.lock"):
            for partial in keys.glob(f".{'openbao-seal' if name == SEAL else name}.*"):
                partial.unlink()  # whoever was writing it was killed
            if name == REGISTER:
                say(register_step(openbao))
                return
            for step in seal_steps(layout, openbao) if name == SEAL else signing_steps(keys, name, store, grace):
                say(step)
    except BlockingIOError:
        raise Conflict(
            "Another command rotates a key.", code="rotation_runs", hint="Wait until it has ended."
        ) from None
    except NotReady as answer:
        raise PlatformBroke(
            f"OpenBao does not do its work: {answer}.",
            code="config_unreachable",
            hint="See `branchline status`. Repeat the command then: it goes on where it was.",
        ) from None


def signing_steps(keys: Path, name: str, store: Store, grace: float = GRACE) -> Iterator[str]:
    """Rotate a signing key; yields what it does next."""
    private, public = keys / f"{name}.pem", keys / f"{name}.pub"
    next_private, next_public = keys / f"{name}.next.pem", keys / f"{name}.next.pub"
    if not next_public.exists():
        yield "a new key is made"
        user = first_start.own_server_account() if next_private.name in OF_THE_SERVER else None
        first_start.make_key_pair(next_private, next_public, user)
    if next_private.exists():
        yield "the config store lets it in, beside the old one"
        store.learn(name, next_private)
        yield "it is put in the place of the old one"
        next_private.replace(private)
    yield f"logins that are under way end ({grace:.0f} s)"
    time.sleep(grace)
    yield "the config store forgets the old one"
    files.write(public, next_public.read_text(), mode=0o644)
    left = store.forget(name)
    next_public.unlink()
    yield left or f"{private.name} is new, and the old one opens nothing"


def seal_steps(layout: Layout, openbao: OpenBao) -> Iterator[str]:
    """Rotate the key that OpenBao unseals itself with; yields what it does next."""
    keys = layout.home / "keys"
    if not seal_keys.retired(keys):
        yield "OpenBao is made able to change its key"
        openbao.allow_new_seal()
        if len(seal_keys.in_use(keys)) == 1:
            yield "a new key is made"
            seal_keys.make(keys, first_start.account())
        yield "OpenBao starts with both, and seals what it has with the new one"
        restart(layout, openbao)
        if not openbao.is_configured():
            raise PlatformBroke(
                "The platform runs with another version of Branchline, which starts OpenBao in its own way.",
                code="not_rotated",
                hint="Run `branchline stop` and `branchline up`, then repeat the command: it goes on where it was.",
            )
        yield "the old one is put aside"
        for key in seal_keys.in_use(keys)[1:]:
            seal_keys.retire(key)
    yield "OpenBao starts with the new one alone"
    try:
        restart(layout, openbao)
    except TimedOut as late:
        for key in seal_keys.retired(keys):
            seal_keys.reinstate(key)
        restart(layout, openbao)
        raise PlatformBroke(
            "OpenBao did not start with the new key alone, so it has both again, and works.",
            code="not_rotated",
            hint=f"It said: {late.hint} Repeat the command once that is mended.",
        ) from None
    yield "the old one is removed"
    for key in seal_keys.retired(keys):
        key.path.unlink()
    yield f"{seal_keys.in_use(keys)[0].path.name} is new, and the old one opens nothing that is stored from now on"


def register_step(openbao: OpenBao) -> str:
    """Add a version to the key that the register is sealed with; says so. Whoever repeats it adds another."""
    path, _ = REGISTER_KEY
    openbao.ask(f"{path}/rotate", {})
    version = openbao.ask(path).get("latest_version")
    return f"the register is sealed with version {version} from now on; what older ones have signed stays good"


class Embedded:
    """The store that the platform runs itself: told by writing its rules, which are made of the files."""

    def __init__(self, openbao: OpenBao) -> None:
        self._openbao = openbao

    def learn(self, _name: str, _key: Path, /) -> None:
        """Write the rules."""
        self._settle()

    def forget(self, _name: str, /) -> str:
        """Write the rules."""
        self._settle()
        return ""

    def _settle(self) -> None:
        end = time.monotonic() + LEARN_LIMIT
        while True:
            try:
                return self._openbao.settle()
            except NotReady:
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)
