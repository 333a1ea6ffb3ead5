"""The device's side of a login: show a code, wait until somebody confirms it in a browser (RFC 8628)."""

from __future__ import annotations

import platform as machine
import sys
import time

from branchline import __version__
from branchline.cli.client import Client
from branchline.cli.credentials import Access
from branchline.cli.lazily import wire_logins
from branchline.cli.render import Style, note, paint, printable
from branchline.domain.config import Secret
from branchline.domain.errors import BranchlineError, NotFound, PlatformBroke, Refused, Unauthenticated

SLOWER = 5.0
"""Seconds by which to wait longer each time, where the server says that we ask too often."""


def offers_devices(client: Client) -> bool:
    """Whether people log in there with a browser. A server of before does not know the question."""
    try:
        return client.get("login", wire_logins.LoginOffer).device
    except (NotFound, Unauthenticated):
        return False


def device_token(url: str) -> Secret | None:
    """A token that somebody lets us have in their browser; None where the platform knows tokens alone.

    Raises Refused where they do not (`access_denied`), or nobody answers in time (`expired_token`).
    """
    with Client(Access(url, Secret(""))) as client:
        if not offers_devices(client):
            return None
        asked = {"client": f"branchline {__version__}", "host": machine.node()[:100] or "unknown"}
        codes = client.read(client.send("POST", "device", asked), wire_logins.DeviceCodes)
        where, code = printable(codes.verification_uri), printable(codes.user_code)
        note(f"Open {paint(where, Style.STRONG, sys.stderr)} in a browser, log in there, and enter")
        note(f"    {paint(code, Style.STRONG, sys.stderr)}")
        note(f"or open {printable(codes.verification_uri_complete)} and compare the code.")
        note(f"Waiting for {codes.expires_in // 60} minutes at the most…")
        return _awaited(client, codes)


def _awaited(client: Client, codes: wire_logins.DeviceCodes) -> Secret:
    pause, until = float(codes.interval), time.monotonic() + codes.expires_in
    while time.monotonic() + pause < until:
        time.sleep(pause)
        try:
            answer = client.send("POST", "device/token", {"device_code": codes.device_code})
        except BranchlineError as error:
            if error.code == "slow_down" or error.status == 429:
                pause += SLOWER
            elif error.code in {"access_denied", "expired_token"}:
                raise Refused(error.sentence, hint=error.hint, code=error.code) from None
            elif error.code != "authorization_pending" and not isinstance(error, PlatformBroke):
                raise
            continue  # what broke may be back next time; the code is good until then
        return Secret(client.read(answer, wire_logins.DeviceToken).token)
    raise Refused(
        "Nobody confirmed the code in time.", code="expired_token", hint=f"Run `branchline login {client.url}` again."
    )
