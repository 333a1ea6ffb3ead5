"""Tokens, and who the caller is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from branchline import __version__
from branchline.domain.access import EVERYWHERE
from branchline.server.api import router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire_people import LONGEST_NAME, NewToken, TokenShown, TokenView, WhoAmI

api = router("/tokens", "tokens")
whoami_api = APIRouter(prefix="/api/v1/whoami", tags=["tokens"])


@whoami_api.get("", operation_id="tokens.authenticate", summary="Who the caller is, by their token")
def whoami(actor: CurrentActor) -> WhoAmI:
    narrowed = {name: None if only is None else sorted(only) for name, only in vars(actor.scope).items()}
    only = actor.scope.projects  # whoever holds a token for one project need not know in which others its owner works
    roles = {where: role for where, role in actor.grants.items() if only is None or where in {*only, EVERYWHERE}}
    return WhoAmI(
        name=actor.name,
        role=actor.role(),
        roles=roles,
        proof=actor.proof,
        until=actor.until,
        version=__version__,
        **narrowed,
    )


@api.get("", operation_id="tokens.list", summary="One's own tokens, or for an admin all; not the tokens themselves")
def tokens(actor: CurrentActor, platform: Operations) -> list[TokenView]:
    return list(platform.tokens.list(actor))


@api.post("", operation_id="tokens.create", summary="Make a token; it is shown this one time", status_code=201)
def create(actor: CurrentActor, platform: Operations, new: NewToken) -> TokenShown:
    return platform.tokens.create(actor, new)


@api.delete("/{name:path}", operation_id="tokens.revoke", summary="Revoke a token", status_code=204)
def revoke(
    actor: CurrentActor,
    platform: Operations,
    name: Annotated[str, Path(max_length=1000)],
    member: Annotated[
        str | None, Query(max_length=LONGEST_NAME, description="Whose; default: one's own, or a machine's.")
    ] = None,
) -> None:
    platform.tokens.revoke(actor, name, member)
