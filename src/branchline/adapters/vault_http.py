"""The connection to OpenBao or HashiCorp Vault: time limits, certificates, repeats, and its address for people."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0

UNTRUSTED = "Name the file of its CA with SSL_CERT_FILE, for `branchline vault setup` and for `branchline up`."


def http_session(url: str) -> requests.Session:
    """Connections that are kept alive, and made again where none could be made."""
    session = requests.Session()
    # Connections refused or a sealed store are mostly a restart: half a second later it is back. Requests that may
    # have been received are not repeated here.
    retries = Retry(
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
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    # Said here, where hvac looks for it: what it is told for a single request does not count beside it.
    session.verify = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    session.trust_env = not _on_this_machine(url)  # a proxy of the environment must not see loopback traffic
    return session


def shown_address(url: str) -> str:
    """The address as errors may show it, without a user's name or password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
