"""Teachers that no engine of this run's own answers for: where they are, and how they are asked.

Somebody else's Stillroom has a door (`DoorConfig`), anybody's server the protocol of OpenAI (`OpenAiConfig`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from configs.models import Block, Positive
from configs.serving import is_loopback

TOKEN_SUFFIX, KEY_SUFFIX = "TOKEN", "KEY"
"""How a variable with a token or a key has to end, so that whatever is written has its value hidden
(`configs.secrets`)."""


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
        _require_address(self.url, key="url", what="a door", form="https://HOST:PORT", secret="token")
        return self

    @model_validator(mode="after")
    def _token_stays_out(self) -> Self:
        _require_variable(self.token_env, key="token_env", suffix=TOKEN_SUFFIX, secret="token", such="STILLROOM_TOKEN")
        return self

    @property
    def host(self) -> str:
        """The name of the door for people: its host, with the port where one is named."""
        return _address(self.url).netloc


class TokenPrice(Block):
    """What a million tokens cost, those that are read and those that are written, in `prices.currency`."""

    read: Annotated[float, Field(ge=0.0)]
    written: Annotated[float, Field(ge=0.0)]

    def cost(self, *, read: int, written: int) -> float:
        """What so many tokens cost."""
        return (read * self.read + written * self.written) / 1e6


class OpenAiConfig(Block):
    """A model behind a server that speaks the protocol of OpenAI (docs/decisions/0040-teachers-elsewhere.md).

    Who it is nobody can check, so it is declared, and rows are kept under what is declared: `model` and `revision` of a
    `provider` (the host of `base_url` unless it is named), and an `epoch`, which is raised where the same name begins
    to answer otherwise. All else changes no number: `base_url` ends before `/completions`; the key is in the
    environment variable `key_env` and nowhere else, and without one none is sent; `ca_file` is that of `DoorConfig`.
    `concurrency` requests are under way at once, and no more than `requests_a_minute`. A server that is away or busy
    is waited for `patience_s`. With a `price` what it costs is counted, and held against `budgets.max_teacher_money`.
    """

    base_url: str
    model: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)]
    provider: Annotated[str, Field(min_length=1)] | None = None
    epoch: Positive = 1
    key_env: str | None = None
    ca_file: Path | None = None
    concurrency: Positive = 8
    requests_a_minute: Positive | None = None
    patience_s: Annotated[float, Field(gt=0.0)] = 600.0
    price: TokenPrice | None = None

    @model_validator(mode="after")
    def _address_of_a_server(self) -> Self:
        _require_address(self.base_url, key="base_url", what="a server", form="https://HOST/v1", secret="key")
        return self

    @model_validator(mode="after")
    def _key_stays_out(self) -> Self:
        if self.key_env is not None:
            _require_variable(self.key_env, key="key_env", suffix=KEY_SUFFIX, secret="key", such="OPENAI_API_KEY")
        return self

    @property
    def host(self) -> str:
        """The name of the server for people: its host, with the port where one is named."""
        return _address(self.base_url).netloc

    @property
    def declared(self) -> dict[str, str | int]:
        """Who it is declared to be: the fields of its identity."""
        provider = self.provider or _address(self.base_url).hostname or ""
        return {"provider": provider, "model": self.model, "revision": self.revision, "epoch": self.epoch}

    @property
    def label(self) -> str:
        """Who it is for people, wherever students and numbers are told apart by their teacher."""
        said = self.declared
        return f"{self.model} (revision {self.revision}, as {said['provider']} declares it; unverifiable)"


def _require_address(url: str, *, key: str, what: str, form: str, secret: str) -> None:
    """Refuse an address that is none, holds a secret, or would have one go unencrypted to another machine.

    Raises:
        ValueError: naming the key and the cure.
    """
    parts = _parts(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{key} is not the address of {what}: write it as {form}")
    if "@" in parts.netloc:
        raise ValueError(
            f"{key} of {parts.hostname} holds a user or password, which would be written into every run: leave it out, "
            f"and put the {secret} into the environment variable that {secret}_env names"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{key} of {parts.hostname} goes on behind its path: write it as {form}")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            f"{key}={url} would take prompts and the {secret} unencrypted to another machine: write https://, or reach "
            f"the {what.removeprefix('a ')} over loopback (a tunnel)"
        )


def _require_variable(name: str, *, key: str, suffix: str, secret: str, such: str) -> None:
    # Who writes the secret itself here must not read it again in an error.
    if not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]*{suffix}|{suffix}", name):
        raise ValueError(
            f"{key} names no environment variable that ends in {suffix}: name one, e.g. {such}, and put the {secret} "
            "into that variable alone"
        )


def _address(url: str) -> SplitResult:
    """The parts of an address that was looked at before."""
    parts = _parts(url)
    assert parts is not None
    return parts


def _parts(url: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
