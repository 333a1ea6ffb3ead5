"""Devices: a command line is let in by somebody who is logged in with a browser (RFC 8628).

The platform is the authorization server itself, so that this works with any provider, also with one that knows no
devices: the browser logs in there, and the platform hands the device a token of that person.
"""

from __future__ import annotations

import secrets
import string
from datetime import datetime, timedelta
from typing import Any

from branchline.domain.access import Actor, Permission, Scope
from branchline.domain.audit import Kind
from branchline.domain.errors import Conflict, NotFound, Refused
from branchline.domain.names import handle
from branchline.domain.printable import printable
from branchline.login_records import DeviceLogin, DeviceState
from branchline.operations.gate import Gate
from branchline.operations.members import actor_of
from branchline.operations.tokens import Tokens, digest_of
from branchline.records import Records, Store
from branchline.wire_logins import DeviceCodes, DeviceToken

LIFETIME = timedelta(minutes=10)
INTERVAL = timedelta(seconds=5)
TOKEN_DAYS = 30

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""Consonants: no two that look alike, and no words by accident (RFC 8628, 6.1)."""

CODE_LENGTH = 8
"""34 bits: good for ten minutes, typed by those who are logged in, a few times a minute at the most."""


class NotLetIn(Refused):
    """What a device is told that is not let in, or not yet. The codes are RFC 8628's."""

    status = 400


class Devices:
    """Devices that ask to be let in."""

    def __init__(self, store: Store, gate: Gate, tokens: Tokens, url: str) -> None:
        self._store = store
        self._gate = gate
        self._tokens = tokens
        self._url = url

    def ask(self, client: str, host: str, source: str) -> DeviceCodes:
        """Give a device the code that it keeps and the one that it shows."""
        device = secrets.token_urlsafe(32)
        while True:
            user = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
            try:
                with self._store.transaction() as records:
                    records.device_logins.add(
                        digest_of(device), digest_of(user), _readable(client), _readable(host), source, LIFETIME
                    )
                break
            except Conflict:
                continue
        page = f"{self._url}/device"
        return DeviceCodes(
            device_code=device,
            user_code=shown(user),
            verification_uri=page,
            verification_uri_complete=f"{page}?code={shown(user)}",
            expires_in=int(LIFETIME.total_seconds()),
            interval=int(INTERVAL.total_seconds()),
        )

    def waiting(self, actor: Actor, code: str) -> DeviceLogin:
        """The device that shows this code; raises NotFound (`unknown_code`), and Refused as `decide` does."""
        self._check(actor)
        with self._store.transaction() as records:
            return self._found(records.device_logins.by_user_code(digest_of(plain(code))))

    def decide(self, actor: Actor, code: str, *, let_in: bool) -> DeviceLogin:
        """Let a device in, as the actor and with no more than they may, or send it away; once.

        Raises NotFound (`unknown_code`), Refused where the actor may have no tokens, or is no person (`person_needed`).
        """
        self._check(actor)
        with self._store.transaction() as records:
            device = self._found(records.device_logins.by_user_code(digest_of(plain(code))))
            state = DeviceState.CONFIRMED if let_in else DeviceState.DENIED
            records.device_logins.decide(device, state, actor.name, _lent(actor) if let_in else {})
            detail = {"device": device.host, "client": device.client, "from": device.source}
            kind = Kind.LOGIN_SUCCEEDED if let_in else Kind.LOGIN_FAILED
            records.register.add(actor.event(kind, detail={"method": "device", **detail}))
        return device

    def poll(self, code: str) -> DeviceToken:
        """The token of a device that was let in, once.

        Raises NotLetIn: `authorization_pending`, `slow_down`, `access_denied`, `expired_token`; and what `issue` does.
        """
        with self._store.transaction() as records:
            device, too_often = records.device_logins.poll(digest_of(code), INTERVAL)
            if device is None:
                raise NotLetIn(
                    "The code is unknown, was used, or its ten minutes are over.",
                    code="expired_token",
                    hint="Run `branchline login` again.",
                )
            waits = device.state is DeviceState.ASKED
            if device.state is DeviceState.DENIED:
                records.device_logins.remove(device)
            elif not waits and not too_often:
                records.device_logins.remove(device)
                made = self._tokens.issue(records, _lender(records, device), handle(f"cli-{device.host}"), TOKEN_DAYS)
                return DeviceToken(name=made.name, token=made.token, expires_at=made.expires_at)
        # told only here: what was noted of the question must be kept, and an error would undo it
        if device.state is DeviceState.DENIED:
            raise NotLetIn(f"{device.decided_by} did not let this device in.", code="access_denied")
        if too_often:
            raise NotLetIn("The device asks too often.", code="slow_down", hint="Wait five seconds longer each time.")
        raise NotLetIn(
            "Nobody has let this device in yet.",
            code="authorization_pending",
            hint=f"Open {self._url}/device in a browser.",
        )

    def _check(self, actor: Actor) -> None:
        if actor.member is None:
            raise Refused(
                f"{actor.name} is a machine: only a person lets devices in.",
                code="person_needed",
                hint="Log in as a member. Give the device the machine's token with `branchline login --token`.",
            )
        self._gate.among(actor, Permission.OWN_TOKENS)

    def _found(self, device: DeviceLogin | None) -> DeviceLogin:
        if device is None:
            raise NotFound(
                "No device waits with this code.",
                code="unknown_code",
                hint="It is good for ten minutes, and once. Compare it with what the device shows.",
            )
        return device


def shown(code: str) -> str:
    """A code as people read it: ABCD-EFGH."""
    return f"{code[: CODE_LENGTH // 2]}-{code[CODE_LENGTH // 2 :]}"


def plain(code: str) -> str:
    """A code as it is kept, from whatever somebody typed."""
    return "".join(sign for sign in code.upper() if sign in string.ascii_uppercase)


def _readable(name: str) -> str:
    """What a device calls itself, without what could fool whoever reads it."""
    return "".join(sign for sign in printable(name) if sign.isprintable()).strip() or "(nameless)"


def _lent(actor: Actor) -> dict[str, Any]:
    """What a device may that an actor lets in: as much as they, by what they are logged in with."""
    scope = actor.scope
    return {
        "member": actor.member,
        "projects": None if scope.projects is None else sorted(scope.projects),
        "permissions": None if scope.permissions is None else sorted(scope.permissions),
        "until": actor.until.isoformat() if actor.until else None,
        "token": actor.token,
    }


def _lender(records: Records, device: DeviceLogin) -> Actor:
    """The actor that let a device in, when its token is made."""
    lent = device.grant
    scope = Scope(
        None if lent["projects"] is None else frozenset(lent["projects"]),
        None if lent["permissions"] is None else frozenset(map(Permission, lent["permissions"])),
    )
    until = datetime.fromisoformat(lent["until"]) if lent["until"] else None
    member = records.members.by_id(lent["member"])
    proof = f"device {device.host}, let in by {device.decided_by}"
    return actor_of(
        records,
        member.id,
        member.name,
        proof,
        source=device.source,
        scope=scope,
        until=until,
        token=lent.get("token"),  # not there in what a version of before wrote down
    )
