"""The teacher as a service: where its door is, how much it lets in, how many engines stand behind it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.models import Block, Positive

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""How this machine calls itself."""


class ServeConfig(Block):
    """How `distill serve` opens its door. Changes no number.

    It listens on `host` and answers to that name and to `hosts`. Beyond loopback it speaks TLS alone, with
    `certificate` and `private_key` (PEM files). `tokens` is the file of those who may come in, which
    `distill serve token` writes; without it one below the run root.

    Engines of each teacher are at least `least_engines` and at most `most_engines`, by how much waits; without them
    there are as many as `runtime.teacher_engine.count`. Each key may ask `requests_a_minute`, and have the teacher read
    or write `tokens_a_minute`. One request may hold `most_rows` rows and `most_tokens` tokens, and takes `request_s` at
    most; more than `most_waiting_tokens` never wait for a teacher. What was answered is written every `commit_every_s`.

    Of `most_connections` none is kept for nothing: headers have to be there within `headers_s`, a body within `body_s`;
    whoever asks nothing for `idle_s`, or takes nothing of an answer for `stalled_s`, is cut off.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8100
    hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    tokens: Path | None = None
    least_engines: Positive | None = None
    most_engines: Positive | None = None
    requests_a_minute: Positive | None = None
    tokens_a_minute: Positive | None = None
    most_rows: Positive = 1024
    most_tokens: Positive = 262_144
    most_body_bytes: Positive = 16 * 2**20
    request_s: Annotated[float, Field(gt=0.0)] = 600.0
    headers_s: Annotated[float, Field(gt=0.0)] = 20.0
    body_s: Annotated[float, Field(gt=0.0)] = 30.0
    idle_s: Positive = 75
    stalled_s: Annotated[float, Field(gt=0.0)] = 60.0
    most_connections: Positive = 1024
    most_waiting_tokens: Positive = 262_144
    commit_every_s: Annotated[float, Field(gt=0.0)] = 5.0

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _tls_beyond_loopback(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError(
                f"certificate={self.certificate} and private_key={self.private_key}: TLS needs both, name the other one"
            )
        if self.certificate is None and not self.on_loopback:
            raise ValueError(
                f"host={self.host} can be reached from other machines, to which tokens would go unencrypted: set "
                "certificate and private_key, or host: 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _engines_in_order(self) -> Self:
        least, most = self.least_engines or 1, self.most_engines
        if most is not None and most < least:
            raise ValueError(f"most_engines={most} is less than least_engines={least}: change one")
        return self


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, which no other one reaches."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
