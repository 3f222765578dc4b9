"""Passwords inside of URIs: found wherever they stand, and hidden.

A configuration may not hold any, because it is written into every run directory; whatever else is written or shown
has them hidden (`configs.secrets.redact`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

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


def hide_passwords(text: str) -> str:
    """`text` with `<password>` in place of each."""
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
