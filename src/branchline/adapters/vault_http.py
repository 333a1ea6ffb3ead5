"""The connection to OpenBao or HashiCorp Vault: time limits, certificates, repeats, and its address for people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection_from_url
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.util import Retry, Timeout

from branchline.domain.addresses import on_this_machine

CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
_TIMEOUT = Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)

UNTRUSTED = "Name the file of its CA with SSL_CERT_FILE, for `branchline vault setup` and for `branchline up`."


def http_session(url: str) -> requests.Session:
    """Connections that are kept alive, and made again where none could be made."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=_retries()))
    # Said here, where hvac looks for it: what it is told for a single request does not count beside it.
    session.verify = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    session.trust_env = not on_this_machine(url)  # a proxy of the environment must not see loopback traffic
    return session


def quick_session(url: str) -> requests.Session:
    """The same for hvac, with less around each request where the server is on this machine and speaks plain HTTP."""
    if on_this_machine(url) and urlsplit(url).scheme == "http":
        return _NearbySession(url)
    return http_session(url)


def _retries() -> Retry:
    # Connections refused, or a store that is sealed or on standby (503), are mostly a restart: half a second later it
    # is back. Both mean that nothing was done; what may have been done is not repeated here.
    return Retry(
        total=None,
        connect=3,
        read=False,
        other=False,
        status=3,
        status_forcelist=(503,),
        allowed_methods=None,
        backoff_factor=0.25,
        respect_retry_after_header=False,
        raise_on_status=False,
    )


def cut_off(error: requests.ConnectionError) -> bool:
    """Whether a connection ended while an answer was awaited: the request may have been received, or not."""
    return bool(error.args) and isinstance(error.args[0], ProtocolError)


class _Answer:
    """What hvac asks of a response, and no more."""

    __slots__ = ("headers", "ok", "status_code", "text")

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status_code = status
        self.ok = status < 400
        self.headers = headers
        self.text = data.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError where it is none."""
        return json.loads(self.text)


class _NearbySession(requests.Session):
    """A session with a server on this machine, without TLS: what requests prepares and looks up is left out.

    With a server so near that is a third of the time that a read of config takes (`bench/config.py`).
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._pool = connection_from_url(url, maxsize=10, retries=_retries(), timeout=_TIMEOUT)

    def request(self, method: str | bytes, url: str | bytes, *_: Any, **told: Any) -> requests.Response:
        headers, body = told["headers"], None
        if told.get("json") is not None:
            body = json.dumps(told["json"]).encode()
            headers.setdefault("Content-Type", "application/json")
        wanted = {name: value for name, value in (told.get("params") or {}).items() if value is not None}
        query = f"?{urlencode(wanted)}" if wanted else ""
        path = urlsplit(str(url)).path + query
        try:
            answer = self._pool.urlopen(str(method).upper(), path, body=body, headers=headers, redirect=False)
        except ReadTimeoutError as error:
            raise requests.ReadTimeout(str(error)) from None
        except MaxRetryError as error:
            # What was refused is, for urllib3, a kind of what came too late.
            late = isinstance(error.reason, ConnectTimeoutError) and not isinstance(error.reason, NewConnectionError)
            raise (requests.ConnectTimeout if late else requests.ConnectionError)(str(error.reason)) from None
        except (HTTPError, OSError) as error:
            raise requests.ConnectionError(error) from None
        return cast(requests.Response, _Answer(answer.status, answer.headers, answer.data))


def shown_address(url: str) -> str:
    """The address as errors may show it, without a user's name or password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
