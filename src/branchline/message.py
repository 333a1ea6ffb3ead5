"""What all messages of the HTTP API have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that a database can keep."""


class Wire(BaseModel):
    """A message of the API; an unknown key in a request is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
