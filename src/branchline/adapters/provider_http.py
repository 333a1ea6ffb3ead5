"""HTTP with a provider of identities: time limits, sizes, and errors that say whose fault it is."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from branchline import __version__
from branchline.domain.addresses import on_this_machine
from branchline.domain.errors import PlatformBroke

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
LARGEST_ANSWER = 1024 * 1024
"""Bytes. Key sets and lists of groups are far smaller."""


class ProviderHttp:
    """A client of one provider. Redirects are not followed: what we ask for lies where we ask for it."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._http = httpx.Client(
            headers={"User-Agent": f"branchline/{__version__}", "Accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            verify=ssl.create_default_context() if url.startswith("https:") else False,
            trust_env=not on_this_machine(url),
        )

    def get(self, url: str, *, bearer: str = "", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One answer with status 200; raises PlatformBroke (`provider_unreachable`, `provider_broke`) for all else."""
        extra = dict(headers or {}) | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        answer = self.ask("GET", url, headers=extra)
        if answer.status_code != 200:
            raise self.broke(f"answered {_shown(url)} with HTTP {answer.status_code}")
        return answer

    def post(self, url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None) -> httpx.Response:
        """Send a form; the answer may be a refusal. Raises PlatformBroke where there is none."""
        return self.ask("POST", url, data=dict(form), auth=auth)

    def ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        """One exchange, whatever comes of it."""
        try:
            with self._http.stream(method, url, **more) as answer:
                content = b""
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > LARGEST_ANSWER:
                        raise self.broke(f"answered {_shown(url)} with more than 1 MiB")
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
            raise PlatformBroke(
                f"{self._name}, which knows who people are, does not answer.",
                code="provider_unreachable",
                hint="Try again in a moment. Whoever has a token can log in with that meanwhile.",
            ) from error
        if answer.status_code >= 500:
            raise self.broke(f"answered {_shown(url)} with HTTP {answer.status_code}")
        # without the header that told how it was packed: it is unpacked already
        kind = {"Content-Type": answer.headers.get("content-type", "")}
        link = {"Link": answer.headers["link"]} if "link" in answer.headers else {}
        return httpx.Response(answer.status_code, headers=kind | link, content=content, request=answer.request)

    def document(self, answer: httpx.Response) -> dict[str, Any]:
        """The JSON object in an answer; raises PlatformBroke (`provider_broke`) where there is none."""
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self.broke(f"answered {_shown(str(answer.request.url))} with something that is no JSON object")
        return cast(dict[str, Any], found)

    def broke(self, what: str) -> PlatformBroke:
        """The provider answers, but not as it should."""
        return PlatformBroke(
            f"{self._name}, which knows who people are, {what}.",
            code="provider_broke",
            hint="Try again. If it stays, whoever runs the platform compares its login settings with the provider's.",
        )


def _shown(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
