"""The HTTP client of the platform's API: one connection, wire models out, our own errors for whatever goes wrong."""

from __future__ import annotations

import json
import platform
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import httpx

from branchline import __version__
from branchline.cli.credentials import Access, find
from branchline.domain.addresses import on_this_machine
from branchline.domain.errors import (
    BadInput,
    BranchlineError,
    Conflict,
    NotFound,
    PlatformBroke,
    Refused,
    TimedOut,
    Unauthenticated,
    Unreachable,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
"""Asking for a deployment fetches from git before it answers."""
SILENCE_SECONDS = 40.0
"""A stream says something every 15 s; one that says nothing for this long is dead."""

_BY_STATUS: dict[int, type[BranchlineError]] = {
    401: Unauthenticated,
    403: Refused,
    404: NotFound,
    409: Conflict,
    429: Refused,
}


def path(*parts: str | int) -> str:
    """A path of the API from its parts, whatever signs they hold."""
    return "/".join(quote(str(part), safe="") for part in parts)


class Client:
    """Speaks to one platform. Every call raises a BranchlineError: what the platform said, or Unreachable."""

    def __init__(self, access: Access) -> None:
        self.url = access.url
        local = on_this_machine(access.url)
        try:
            self._http = httpx.Client(
                base_url=f"{access.url}/api/v1/",
                headers={
                    **({"Authorization": f"Bearer {token}"} if (token := access.token.reveal()) else {}),
                    "Accept": "application/json",
                    "User-Agent": f"branchline/{__version__} ({platform.system()})",
                },
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                # The system's certificates, among which a company's own are found; plain HTTP needs none.
                verify=ssl.create_default_context() if access.url.startswith("https:") else False,
                trust_env=not local,
            )
        except (UnicodeEncodeError, httpx.InvalidURL) as error:
            raise BadInput(
                "The address or the token holds characters that it cannot hold.",
                code="bad_credentials",
                hint="Run `branchline login`, or look at BRANCHLINE_URL and BRANCHLINE_TOKEN.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, where: str, answer: type[Model], **query: str | int | None) -> Model:
        """Read one message."""
        return self._model(self._send("GET", where, query=query), answer)

    def get_list(self, where: str, answer: type[Model], **query: str | int | None) -> list[Model]:
        """Read a list of messages."""
        return self._list(self._send("GET", where, query=query), answer)

    def get_page(self, where: str, answer: type[Model], **query: str | int | None) -> tuple[list[Model], int | None]:
        """Read part of a list, and the `before` of the part that follows; None where none does."""
        response = self._send("GET", where, query=query)
        following = parse_qs(urlsplit(response.links.get("next", {}).get("url", "")).query).get("before", [""])[0]
        return self._list(response, answer), int(following) if following.isdecimal() else None

    def _list(self, response: httpx.Response, answer: type[Model]) -> list[Model]:
        content = self._json(response)
        if not isinstance(content, list):
            raise self._not_ours(response)
        return [self._parsed(response, item, answer) for item in content]

    def send(
        self, method: str, where: str, body: Mapping[str, Any] | None = None, **query: str | int | None
    ) -> httpx.Response:
        """Send a change. `read` makes a message of the answer; apart, so that the request need not wait for models."""
        return self._send(method, where, body=body, query=query)

    def read(self, response: httpx.Response, answer: type[Model]) -> Model:
        """The message in an answer."""
        return self._model(response, answer)

    @contextmanager
    def stream(self, where: str, after: int) -> Iterator[Iterator[bytes]]:
        """Open a stream of events behind a `seq`; gives its bytes as they arrive. Raises Unreachable when it breaks."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        with (
            self._translated(),
            self._http.stream("GET", where, headers=headers, params={"after": after}, timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                raise self._error(response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise self._not_ours(response)
            yield response.iter_raw()

    @contextmanager
    def pieces(self, where: str, **query: str | int | None) -> Iterator[Iterator[bytes]]:
        """An answer of JSON lines; gives its bytes as they arrive. Raises Unreachable when it breaks off."""
        params = {key: value for key, value in query.items() if value is not None}
        with self._translated(), self._http.stream("GET", where, params=params) as response:
            if not response.is_success:
                response.read()
                raise self._error(response)
            if not response.headers.get("content-type", "").startswith("application/x-ndjson"):
                raise self._not_ours(response)
            yield response.iter_bytes()

    def _send(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        params = {key: value for key, value in (query or {}).items() if value is not None}
        with self._translated():
            response = self._http.request(method, where, params=params, json=body)
        if not response.is_success:
            raise self._error(response)
        return response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what httpx raises into errors of ours."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise Unreachable(f"The platform at {self.url} does not answer.", hint=self._hint()) from error
        except httpx.TimeoutException as error:
            raise TimedOut(
                f"The platform at {self.url} took too long to answer.",
                hint="Try again; `branchline status` tells how it is.",
            ) from error
        except httpx.ConnectError as error:
            if fault := _tls_fault(error):
                raise fault(self.url) from error
            raise Unreachable(f"The platform at {self.url} does not answer.", hint=self._hint()) from error
        except httpx.TransportError as error:
            raise Unreachable(f"The connection to {self.url} broke.", hint=self._hint()) from error
        except httpx.InvalidURL as error:
            raise BadInput(f"{self.url} is not the address of a platform.", code="bad_url") from error

    def _hint(self) -> str:
        if on_this_machine(self.url):
            return "Is it running? See `branchline status`, or start it with `branchline up`."
        return "Is it running, and the address right? `branchline login` sets another; `branchline status` tells more."

    def _error(self, response: httpx.Response) -> BranchlineError:
        """What a refusing answer says, as the error of ours with the same exit status."""
        status = response.status_code
        kind = _BY_STATUS.get(status, PlatformBroke if status >= 500 or status < 400 else BadInput)
        try:
            problem = response.json()
            code, title = problem["code"], problem["title"]
        except (ValueError, KeyError, TypeError):
            return self._not_ours(response)
        error = kind(str(title), hint=str(problem.get("hint") or ""), code=str(code))
        error.status = status
        if detail := problem.get("detail"):
            error.add_note(str(detail))
        return error

    def _not_ours(self, response: httpx.Response) -> BranchlineError:
        kind = response.headers.get("content-type", "nothing").split(";")[0]
        if response.status_code in {502, 503, 504}:
            return Unreachable(
                f"The platform behind {self.url} does not answer (HTTP {response.status_code}).",
                hint="A proxy in front of it says so. Try again in a moment.",
            )
        hint = "Is the address right? `branchline login` sets another."
        if location := response.headers.get("location"):
            hint = f"It sends to {location[:200]}: if that is the platform, use this address."
        return PlatformBroke(
            f"{self.url} answers, but not as Branchline does (HTTP {response.status_code}, {kind}).",
            code="not_branchline",
            hint=hint,
        )

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise self._not_ours(response) from None

    def _model(self, response: httpx.Response, answer: type[Model]) -> Model:
        return self._parsed(response, self._json(response), answer)

    def _parsed(self, response: httpx.Response, content: Any, answer: type[Model]) -> Model:
        try:
            # A newer platform may say more than this version knows.
            return answer.model_validate(content, extra="ignore")
        except ValueError as error:
            raise self._not_ours(response) from error


def _tls_fault(error: BaseException) -> Callable[[str], Unreachable] | None:
    """The error of ours for what went wrong with TLS, if that is what went wrong."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message
        return lambda url: Unreachable(
            f"The certificate of {url} is not to be trusted: {reason}.",
            code="untrusted_certificate",
            hint="If it is your company's own, name the file of its CA with SSL_CERT_FILE.",
        )
    if cause:
        return lambda url: Unreachable(
            f"There is no https at {url}.", code="no_https", hint="Is it http://, or another port?"
        )
    return None


def connect() -> Client:
    """A client of the platform that the environment, a stored login or this machine names."""
    return Client(find())
