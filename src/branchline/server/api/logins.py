"""How one logs in, devices that want to, and the sessions of browsers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from branchline.operations.devices import NotLetIn
from branchline.server.api import router
from branchline.server.attempts import DEVICES, attempts_of
from branchline.server.auth import CurrentActor, Operations, bearer
from branchline.server.source import source_of
from branchline.wire_logins import (
    DeviceCodes,
    DevicePoll,
    DeviceToken,
    Ended,
    LoginOffer,
    NewDevice,
    SessionView,
)

login_api = APIRouter(prefix="/api/v1", tags=["logins"])
sessions_api = router("/sessions", "logins")


@login_api.get("/login", operation_id="logins.providers", summary="How one can log in; open to all")
def offer(platform: Operations) -> LoginOffer:
    providers = platform.logins.providers()
    return LoginOffer(providers=providers, device=bool(providers))


@login_api.post("/device", operation_id="devices.ask", summary="Ask for the codes of a device; open to all")
def ask(request: Request, platform: Operations, new: NewDevice) -> DeviceCodes:
    attempts_of(request).spend(DEVICES, source_of(request))
    return platform.devices.ask(new.client, new.host, source_of(request))


@login_api.post(
    "/device/token",
    operation_id="devices.poll",
    summary="The token of a device that was let in, once; the codes of refusals are RFC 8628's; open to all",
)
def poll(request: Request, platform: Operations, asked: DevicePoll) -> DeviceToken:
    attempts_of(request).check(source_of(request))
    try:
        return platform.devices.poll(asked.device_code)
    except NotLetIn as error:
        if error.code == "expired_token":
            attempts_of(request).failed(source_of(request))
        raise


@login_api.post(
    "/logout", operation_id="tokens.end", summary="Revoke the token that the request carries", status_code=204
)
def log_out(request: Request, actor: CurrentActor, platform: Operations) -> None:
    platform.tokens.end(actor, bearer(request))


@sessions_api.get("", operation_id="sessions.mine", summary="The browsers in which the caller is logged in")
def mine(actor: CurrentActor, platform: Operations) -> list[SessionView]:
    return list(platform.sessions.mine(actor))


@sessions_api.delete("", operation_id="sessions.end_mine", summary="Log the caller out of every browser")
def end_mine(actor: CurrentActor, platform: Operations) -> Ended:
    return Ended(sessions=platform.sessions.end_mine(actor))


@sessions_api.delete("/{member:path}", operation_id="sessions.end_all_of", summary="Log a member out of every browser")
def end_all_of(actor: CurrentActor, platform: Operations, member: Annotated[str, Path(max_length=1000)]) -> Ended:
    return Ended(sessions=platform.sessions.end_all_of(actor, member))
