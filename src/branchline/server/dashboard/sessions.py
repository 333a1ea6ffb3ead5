"""Logins of browsers: the token itself, encrypted in a cookie that no script can read.

Nothing is kept on the server, so that a login survives its restarts and holds for every server that has the key. The
token is authenticated anew with each request: revoking it ends all of its logins at once.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.responses import Response

COOKIE = "branchline_session"
LIFETIME = 12 * 3600
"""Seconds. A working day; the token may well live longer."""

KEY_BYTES = 32
_HEADER = {"alg": "dir", "enc": "A256GCM"}


class Sessions:
    """Seals tokens into cookies and opens them again."""

    def __init__(self, key: bytes) -> None:
        self._key = OctKey.import_key(key)

    def seal(self, token: str) -> str:
        """The cookie's value for a token."""
        content = json.dumps({"token": token, "until": int(time.time()) + LIFETIME})
        return jwe.encrypt_compact(_HEADER, content, self._key, algorithms=list(_HEADER.values()))

    def open(self, sealed: str) -> str | None:
        """The token in a cookie; None where it is not ours, was changed, or is too old."""
        try:
            content = jwe.decrypt_compact(sealed, self._key, algorithms=list(_HEADER.values())).plaintext
        except (JoseError, ValueError):
            return None
        opened = json.loads(content or b"{}")
        return str(opened["token"]) if opened.get("until", 0) > time.time() else None

    def begin(self, response: Response, token: str, *, secure: bool) -> None:
        """Log the browser in. `secure` where it came by HTTPS."""
        response.set_cookie(
            COOKIE, self.seal(token), max_age=LIFETIME, path="/", httponly=True, samesite="strict", secure=secure
        )

    @staticmethod
    def end(response: Response) -> None:
        """Log the browser out."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def session_key(file: Path) -> bytes:
    """The key in a file of mode 0600, made where there is none. Two processes that start at once agree on one."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):
            os.link(partial, file)
        partial.unlink()
    return file.read_bytes()
