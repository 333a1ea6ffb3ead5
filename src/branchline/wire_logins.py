"""Requests and answers of the HTTP API about logins: what is offered, devices, sessions of browsers."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from branchline.message import Text, Wire


class LoginMethod(Wire):
    """A provider that people log in with."""

    id: str
    title: str = Field(description="How people know it.")


class LoginOffer(Wire):
    """How one can log in. A token is always good."""

    providers: list[LoginMethod] = Field([])
    device: bool = Field(description="Whether people can let a command line in from their browser.")


class NewDevice(Wire):
    """A device that wants to be let in (RFC 8628, 3.1)."""

    client: Text = Field(min_length=1, max_length=100, description="What asks: a program and its version.")
    host: Text = Field(min_length=1, max_length=100, description="The name of the machine that asks.")


class DeviceCodes(Wire):
    """What the device keeps and what it shows (RFC 8628, 3.2)."""

    device_code: str = Field(repr=False)
    user_code: str = Field(repr=False, description="What a person types at `verification_uri`, or compares there.")
    verification_uri: str
    verification_uri_complete: str = Field(repr=False)
    expires_in: int = Field(description="Seconds for which both codes are good.")
    interval: int = Field(description="Seconds to wait between two questions.")


class DevicePoll(Wire):
    device_code: Text = Field(min_length=1, max_length=200, repr=False)


class DeviceToken(Wire):
    """The token of a device that was let in, shown this one time."""

    name: str
    token: str = Field(repr=False)
    expires_at: datetime | None = None


class SessionView(Wire):
    """A browser in which somebody is logged in."""

    proof: str
    source: str = Field(description="The network address that it logged in from.")
    agent: str = Field(description="What the browser says it is.")
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool = Field(False, description="Whether it is the one that asks.")


class Ended(Wire):
    sessions: int = Field(description="How many logins of browsers ended.")
