"""Tokens, and who the caller is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from branchline import __version__
from branchline.server.api import router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire import NewToken, TokenShown, TokenView, WhoAmI

api = router("/tokens", "tokens")
whoami_api = APIRouter(prefix="/api/v1/whoami", tags=["tokens"])


@whoami_api.get("", operation_id="tokens.authenticate", summary="Who the caller is, by their token")
def whoami(actor: CurrentActor) -> WhoAmI:
    return WhoAmI(name=actor.name, role=actor.role, proof=actor.proof, version=__version__)


@api.get("", operation_id="tokens.list", summary="All tokens, without the tokens themselves")
def tokens(actor: CurrentActor, platform: Operations) -> list[TokenView]:
    return list(platform.tokens.list(actor))


@api.post("", operation_id="tokens.create", summary="Make a token; it is shown this one time", status_code=201)
def create(actor: CurrentActor, platform: Operations, new: NewToken) -> TokenShown:
    token = platform.tokens.create(actor, new.name, new.role)
    return TokenShown(name=new.name, role=new.role, token=token)


@api.delete("/{name}", operation_id="tokens.revoke", summary="Revoke a token", status_code=204)
def revoke(actor: CurrentActor, platform: Operations, name: Annotated[str, Path(max_length=1000)]) -> None:
    platform.tokens.revoke(actor, name)
