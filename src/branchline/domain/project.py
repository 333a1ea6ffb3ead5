"""Projects: repositories with a manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from branchline.domain.errors import BadInput


@dataclass(frozen=True)
class Project:
    """One repository that the platform deploys."""

    id: int
    name: str
    repository: str


def check_repository(url: str) -> str:
    """Return a repository address that git may be given; raise BadInput for anything else.

    Accepted: absolute paths, `file://`, `https://`, `http://`, `ssh://`, and `user@host:path`. Refused: what git
    would read as an option or as a command (`ext::`), and passwords, which belong into a credential store.
    """
    hint = "Give https://host/path.git, ssh://user@host/path.git, user@host:path.git or an absolute path."
    if not url or url.startswith("-") or any(ord(sign) < 33 for sign in url) or len(url) > 1000:
        raise BadInput("That is not the address of a repository.", code="bad_repository", hint=hint)
    if url.startswith("/") or re.match(r"^[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^:]+$", url):
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"file", "https", "http", "ssh"} or not parts.path.strip("/"):
        raise BadInput("That is not the address of a repository.", code="bad_repository", hint=hint)
    if parts.password:
        raise BadInput(
            "The repository's address carries a password.",
            code="password_in_address",
            hint="Use a deploy key (ssh://…), or git's credential store on the platform's machine.",
        )
    return url
