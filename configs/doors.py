"""A teacher that somebody else's Stillroom serves: where its door is, and how it is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from configs.models import Block
from configs.serving import is_loopback

TOKEN_SUFFIX = "TOKEN"
"""How the variable with a token has to end, so that whatever is written has its value hidden (`configs.secrets`)."""


class DoorConfig(Block):
    """The door of a shared teacher (`distill serve`); text in the place of the block is its `url`.

    It changes no number: who answers is checked. `teacher` is the teacher's name there, needed where the door serves
    several. The token is in the environment variable `token_env` and nowhere else. `ca_file` holds the certificates
    that the door's is held against, where the system's do not know it. A door that is away is waited for `patience_s`.
    """

    url: str
    teacher: str | None = None
    token_env: str = "STILLROOM_TOKEN"
    ca_file: Path | None = None
    patience_s: Annotated[float, Field(gt=0.0)] = 600.0

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, said: Any) -> Any:
        return {"url": said} if isinstance(said, str) else said

    @model_validator(mode="after")
    def _address_of_a_door(self) -> Self:
        parts = _parts(self.url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url is not the address of a door: write it as https://HOST:PORT")
        if "@" in parts.netloc:
            raise ValueError(
                f"url of {parts.hostname} holds a user or password, which would be written into every run: leave it "
                "out, and put the door's token into the environment variable that token_env names"
            )
        if parts.query or parts.fragment:
            raise ValueError(f"url of {parts.hostname} goes on behind its path: write it as https://HOST:PORT")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(
                f"url={self.url} would take the token unencrypted to another machine: write https://, or reach the "
                "door over loopback (a tunnel)"
            )
        return self

    @model_validator(mode="after")
    def _token_stays_out(self) -> Self:
        # Who writes the token itself here must not read it again in an error.
        if not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]*{TOKEN_SUFFIX}|{TOKEN_SUFFIX}", self.token_env):
            raise ValueError(
                f"token_env names no environment variable that ends in {TOKEN_SUFFIX}: name one, e.g. STILLROOM_TOKEN, "
                "and put the token into that variable alone"
            )
        return self

    @property
    def host(self) -> str:
        """The name of the door for people: its host, with the port where one is named."""
        parts = _parts(self.url)
        assert parts is not None
        return parts.netloc


def _parts(url: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
