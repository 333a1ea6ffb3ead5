"""OpenBao as a provider of identities: people with passwords and groups, and an OpenID Connect client for us."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from branchline.layout import Layout
from tests.fakes.providers import query_of
from tests.openbao import Caller, operator

PASSWORD = "a password of the tests"


class People:
    """Everybody who can log in. `issuer`, `client_id` and `client_secret` are what the platform is set to."""

    def __init__(self, url: str, layout: Layout, name: str, redirect_uri: str, *, public: bool = False) -> None:
        self._url = url
        self._name = name
        self.admin = operator(url, layout)
        self.issuer = f"{url}/v1/identity/oidc/provider/{name}"
        if "userpass/" not in self._ask("GET", "sys/auth")["data"]:
            self._ask("POST", "sys/auth/userpass", type="userpass")
        self._accessor = self._ask("GET", "sys/auth")["data"]["userpass/"]["accessor"]
        self._ask("POST", f"identity/oidc/key/{name}", allowed_client_ids=["*"], algorithm="RS256")
        self._ask(
            "POST",
            f"identity/oidc/client/{name}",
            redirect_uris=[redirect_uri],
            assignments=["allow_all"],
            key=name,
            client_type="public" if public else "confidential",
        )
        client = self._ask("GET", f"identity/oidc/client/{name}")["data"]
        self.client_id: str = client["client_id"]
        self.client_secret: str | None = client.get("client_secret")
        self._scope("profile", '{"preferred_username": {{identity.entity.name}}}')
        self._scope("groups", '{"groups": {{identity.entity.groups.names}}}')
        scopes = ["profile", "groups"]
        self._ask("POST", f"identity/oidc/provider/{name}", allowed_client_ids=["*"], scopes_supported=scopes)

    def _scope(self, name: str, template: str) -> None:
        self._ask("POST", f"identity/oidc/scope/{name}", template=template)

    def add(self, person: str, *groups: str) -> str:
        """Somebody new, in these groups; gives their id there."""
        self._ask("POST", f"auth/userpass/users/{person}", password=PASSWORD)
        entity: str = self._ask("POST", "identity/entity", name=person)["data"]["id"]
        self._ask("POST", "identity/entity-alias", name=person, canonical_id=entity, mount_accessor=self._accessor)
        for group in groups:
            known = self.admin.ask("GET", f"identity/group/name/{group}")
            members = known.json()["data"]["member_entity_ids"] if known.status_code == 200 else []
            self._ask("POST", f"identity/group/name/{group}", member_entity_ids=[*members, entity])
        return entity

    def remove_from(self, group: str) -> None:
        """Nobody is in that group any more."""
        self._ask("POST", f"identity/group/name/{group}", member_entity_ids=[])

    def rotate_key(self) -> None:
        """From now on tokens are signed with another key, and the one before is not published any more."""
        self._ask("POST", f"identity/oidc/key/{self._name}/rotate", verification_ttl="0")

    def log_in(self, address: str, person: str) -> str:
        """What somebody does at the provider: give the password and consent. Gives where they are sent back to."""
        asked = query_of(address)
        answer = Caller(self._url).ask("POST", f"auth/userpass/login/{person}", password=PASSWORD)
        assert answer.status_code == 200, answer.text
        theirs = Caller(self._url, answer.json()["auth"]["client_token"])
        path = f"identity/oidc/provider/{self._name}/authorize?{urlencode(asked)}"
        consented = theirs.ask("GET", path)
        assert consented.status_code == 200, consented.text
        back = {"code": consented.json()["code"], "state": consented.json()["state"]}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def _ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = self.admin.ask(method, path, **body)
        assert answer.status_code in {200, 204}, f"{path}: {answer.text}"
        return answer.json() if answer.content else {}
