"""Secrets are not written down: not into configurations, logs, messages, MLflow, nor the arguments of processes.

Two kinds are known: values of environment variables whose names say that they are secret, and passwords inside of
URIs. A configuration may not hold the second kind at all, because it is written into every run directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args
from urllib.parse import quote

from pydantic import BaseModel

SECRET_SUFFIXES = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE")
"""Environment variables whose names end in one of these (in any case) hold secrets."""

SHORTEST_SECRET = 4
"""Shorter values are left alone: replacing every `1` of a log because FLAG_KEY=1 would only hide the log."""

HIDDEN = "<password>"

# One slash is left of two where a URI was taken for a path.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:/{1,2}"
# Greedy up to the last `@` before the path: a password that was not escaped may hold one.
_USERINFO = re.compile(rf"({_SCHEME}[^\s/@:\"'<>]*):(?!{HIDDEN}@)([^\s/\"'<>]+)@")
# Whoever stands alone before the host of a web address is a token: a server asks for a name and a password.
_TOKEN = re.compile(rf"(https?:/{{1,2}})(?!{HIDDEN}@)([^\s/@:?#\"'<>]+)@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:password|passwd|secret|token|api_?key|access_?key|signature)|sig|pwd)=)"
    rf"(?!{HIDDEN})([^&;#\s\"'<>]+)",
    re.IGNORECASE,
)


def has_password(text: str) -> bool:
    """Whether a text is a URI with a password in it."""
    text = text.strip()
    if re.match(_SCHEME, text) is None or any(char.isspace() for char in text):
        return False
    return any(pattern.search(text) for pattern in (_USERINFO, _TOKEN, _QUERY))


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
    text = _TOKEN.sub(rf"\1{HIDDEN}@", _USERINFO.sub(rf"\1:{HIDDEN}@", text))
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def passwords_in(tree: object, *, key: str = "") -> Iterator[str]:
    """The dotted keys of all URIs with a password in nested mappings and lists."""
    if isinstance(tree, str):
        if has_password(tree):
            yield key
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from passwords_in(value, key=f"{key}.{name}" if key else str(name))
    elif isinstance(tree, Sequence) and not isinstance(tree, bytes):
        for index, value in enumerate(tree):
            yield from passwords_in(value, key=f"{key}.{index}")


@cache
def _words() -> frozenset[str]:
    """The words that our own messages are made of: keys and choices of the schema, and names of runs and parts."""
    # Not at the top: the schema is read with the help of this module.
    from configs.schema import RESERVED_NAMES, DistillConfig

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
