"""Providers of identities by hand: small real HTTP servers that answer as documented, with faults to order."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

_numbers = itertools.count()

CLIENT = "branchline"
SECRET = "of the client: +&=%"


def query_of(address: str) -> dict[str, str]:
    """What stands behind the question mark."""
    return {key: values[0] for key, values in parse_qs(urlsplit(address).query, keep_blank_values=True).items()}


def s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    provider: Provider


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at `asked` instead."""

    def _handle(self) -> None:
        provider = self.server.provider
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        form = {key: one[0] for key, one in parse_qs(self.rfile.read(length).decode()).items()}
        query = {key: one[0] for key, one in parse_qs(parts.query).items()}
        provider.asked.append(parts.path)
        if parts.path in provider.broken:
            status, body, headers = provider.broken[parts.path], {}, {}
        else:
            status, body, headers = provider.answer(parts.path, query | form, dict(self.headers))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _handle


class Provider:
    """What both have: an address, what they were asked, and paths that answer with a status of a test's choice."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: dict[str, int] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def answer(self, path: str, given: dict[str, str], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class FakeOidc(Provider):
    """An OpenID Connect provider. `claims` replace the usual ones in the ID token; `forge` makes the token instead."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeySet([_own_key()])
        self.others: list[dict[str, Any]] = []
        self.auth_methods: list[str] | None = None
        self.secret: str | None = SECRET
        self.documented: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {"sub": "ada-1", "email": "ada@example.com", "email_verified": True}
        self.codes: dict[str, dict[str, str]] = {}
        self.forge: Callable[[dict[str, Any]], str] | None = None
        self.auth = ""

    def log_in(self, address: str) -> str:
        """What the browser does there: the code for whoever is logged in."""
        code = f"code-{next(_numbers)}"
        self.codes[code] = query_of(address)
        return code

    def sign(self, claims: dict[str, Any], key: Any = None, alg: str = "RS256", **header: Any) -> str:
        key = key or self.keys.keys[0]
        algorithms = [alg]
        return jwt.encode({"alg": alg, "kid": key.kid, **header}, claims, key, algorithms=algorithms)

    def answer(self, path: str, given: dict[str, str], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if path == "/.well-known/openid-configuration":
            document: dict[str, Any] = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "userinfo_endpoint": f"{self.url}/userinfo",
            }
            if self.auth_methods is not None:
                document["token_endpoint_auth_methods_supported"] = self.auth_methods
            return 200, document | self.documented, {}
        answers = {
            "/jwks": self._jwks,
            "/userinfo": self._userinfo,
            "/authorize": self._authorize,
            "/token": self._token,
        }
        return answers[path](given, headers) if path in answers else (404, {}, {})

    def _jwks(self, _given: dict[str, str], _headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        return 200, {"keys": [*self.keys.as_dict()["keys"], *self.others]}, {}

    def _userinfo(self, _given: dict[str, str], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        return (200, self.userinfo, {}) if headers.get("Authorization") == "Bearer access-1" else (401, {}, {})

    def _authorize(self, given: dict[str, str], _headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """For a browser in which somebody is logged in there, and has consented."""
        code = f"code-{next(_numbers)}"
        self.codes[code] = given
        return 302, {}, {"Location": f"{given['redirect_uri']}?{urlencode({'code': code, 'state': given['state']})}"}

    def _token(self, given: dict[str, str], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if (basic := headers.get("Authorization", "")).startswith("Basic "):
            name, _, password = base64.b64decode(basic[6:]).decode().partition(":")
            client, secret, self.auth = unquote_plus(name), unquote_plus(password), "basic"
        else:
            client, secret = given.get("client_id", ""), given.get("client_secret", "")
            self.auth = "post" if secret else "none"
        if client != CLIENT or secret != (self.secret or ""):
            return 401, {"error": "invalid_client"}, {}
        asked = self.codes.pop(given.get("code", ""), None)
        fits = asked is not None and (
            asked["redirect_uri"] == given["redirect_uri"] and asked["code_challenge"] == s256(given["code_verifier"])
        )
        if not fits or asked is None:
            return 400, {"error": "invalid_grant"}, {}
        now = int(time.time())
        usual = {"iss": self.url, "aud": CLIENT, "sub": "ada-1", "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = {key: one for key, one in (usual | self.claims).items() if one is not None}
        made = self.forge(claims) if self.forge else self.sign(claims)
        return 200, {"access_token": "access-1", "token_type": "Bearer", "id_token": made}, {}


class FakeGitHub(Provider):
    """GitHub's login and the four paths of its API that it takes, as an Enterprise Server has them."""

    def __init__(self) -> None:
        super().__init__()
        self.user: dict[str, Any] = {"id": 583231, "login": "octocat", "name": "The Octocat"}
        self.emails: list[dict[str, Any]] = [
            {"email": "other@example.com", "primary": False, "verified": True},
            {"email": "octocat@example.com", "primary": True, "verified": True},
        ]
        self.orgs = ["github"]
        self.teams = [("github", "justice-league"), ("hidden", "ops")]
        self.codes: dict[str, dict[str, str]] = {}
        self.scope = ""

    def log_in(self, address: str) -> str:
        code = f"code-{next(_numbers)}"
        self.codes[code] = query_of(address)
        self.scope = self.codes[code]["scope"]
        return code

    def answer(self, path: str, given: dict[str, str], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if path == "/login/oauth/access_token":
            return 200, self._token(given), {}
        if headers.get("Authorization") != "Bearer gho_1":
            return 401, {"message": "Requires authentication"}, {}
        found: dict[str, Any] = {
            "/api/v3/user": self.user,
            "/api/v3/user/emails": self.emails,
            "/api/v3/user/orgs": [{"login": name} for name in self.orgs],
            "/api/v3/user/teams": [{"slug": slug, "organization": {"login": org}} for org, slug in self.teams],
        }
        if path not in found:
            return 404, {"message": "Not Found"}, {}
        answer = found[path]
        if not isinstance(answer, list):
            return 200, answer, {}
        page, size = int(given.get("page", 1)), int(given.get("per_page", 30))
        more = len(answer) > page * size
        link = {"Link": f'<{self.url}{path}?page={page + 1}>; rel="next"'} if more else {}
        return 200, answer[(page - 1) * size : page * size], link

    def _token(self, given: dict[str, str]) -> dict[str, str]:
        """Every refusal comes with status 200, as GitHub has it."""
        if (given.get("client_id"), given.get("client_secret")) != (CLIENT, SECRET):
            return {"error": "incorrect_client_credentials"}
        asked = self.codes.pop(given.get("code", ""), None)
        if asked is None or asked["code_challenge"] != s256(given["code_verifier"]):
            return {"error": "bad_verification_code"}
        return {"access_token": "gho_1", "scope": self.scope, "token_type": "bearer"}


def unsigned(claims: dict[str, Any]) -> str:
    """A token of the algorithm `none`."""

    def part(one: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'kid': 'one'})}.{part(claims)}."


def signed_with_what_is_public(provider: FakeOidc) -> Callable[[dict[str, Any]], str]:
    """HS256 whose key is the provider's public one: who only looks at `alg` believes it."""
    pem = provider.keys.keys[0].as_pem(private=False)  # type: ignore[union-attr]
    key = OctKey.import_key(base64.urlsafe_b64encode(pem).decode())
    return lambda claims: jwt.encode({"alg": "HS256", "kid": "one"}, claims, key, algorithms=["HS256"])


@cache
def _own_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


@cache
def another_key(kid: str = "one") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


def curve_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})
