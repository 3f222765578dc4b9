"""Secrets are not written down: not into logs, messages, MLflow, nor the arguments of processes.

Two kinds are known: values of environment variables whose names say that they are secret, and passwords inside of
URIs (`configs.passwords`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args
from urllib.parse import quote

from configs.passwords import hide_passwords

SECRET_SUFFIXES = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE")
"""Environment variables whose names end in one of these (in any case) hold secrets."""

SHORTEST_SECRET = 4
"""Shorter values are left alone: replacing every `1` of a log because FLAG_KEY=1 would only hide the log."""


def redact(text: str, *, environ: Mapping[str, str] | None = None) -> str:
    """`text` without passwords in URIs, and with secrets from environment variables replaced by their names.

    `environ` is this process's environment if not given. Values that are words of our own (`SECRET_KEY=test`) stay:
    hiding them would hide `data.test`, and whoever reads that word learns nothing.
    """
    variables = os.environ if environ is None else environ
    secrets = [
        (value, name)
        for name, value in variables.items()
        if name.upper().endswith(SECRET_SUFFIXES) and len(value) >= SHORTEST_SECRET and value.lower() not in _words()
    ]
    spelt = {spelling: name for value, name in secrets for spelling in (value, quote(value, safe=""))}
    # The longest first: a secret that holds another one must not leave its remainder behind.
    for value, name in sorted(spelt.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(value, f"<{name}>")
    return hide_passwords(text)


@cache
def _words() -> frozenset[str]:
    """The words that our own messages are made of: keys and choices of the schema, and names of runs and parts."""
    # Logging needs this module, and the command line that, without the schema.
    from pydantic import BaseModel

    from configs.agreement import RESERVED_NAMES
    from configs.schema import DistillConfig

    plain = "true false null none train test dev eval fill plan run report cache student students stillroom distill"
    found = set(plain.split()) | RESERVED_NAMES
    waiting: list[Any] = [DistillConfig]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, str):
            found.add(each.lower())
        elif isinstance(each, type) and issubclass(each, BaseModel):
            found |= set(each.model_fields)
            waiting += [field.annotation for field in each.model_fields.values()]
        else:
            waiting += get_args(each)
    return frozenset(found | {part for word in found for part in word.split("_") if len(part) >= SHORTEST_SECRET})
