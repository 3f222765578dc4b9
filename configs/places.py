"""Places that may be a directory or a URL of an object store, and names of files that several parts know."""

from __future__ import annotations

import re
from pathlib import Path

SCHEMES = ("s3", "gs", "az")

SUMMARY = "stillroom.json"
"""The file of a kept model that says what it is and what it consists of. It says nothing of a copy."""

CURVES = "curves.jsonl"
"""The file of a kept model with the course of its training, one JSON object a step."""

WRITTEN = "config.yaml"
"""The file of a run directory with its configuration as it was written."""

RESOLVED = "resolved.yaml"
"""The same with every path as it was found, so that a finished run can be opened from anywhere."""

PAGE = "report.html"
"""The file of a run directory with its report as a page."""

STAGING = ".staging-"
"""Begins the names of directories and files that are being written; nothing reads them."""

ARCHITECTURES = "architectures.json"
"""The file of a models root that remembers what each `config.json` means (`inputs.known_architectures`)."""

FINGERPRINTS = "fingerprints.json"
"""The file of a models root that remembers what weights hashed to (`cache.fingerprint`)."""

DIGESTS = "digests.json"
"""The file of a run root that remembers what other files hashed to (`orchestration.outputs.kept`)."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://[^/]+")


def is_url(root: Path | str) -> bool:
    """Whether a root names an object store rather than a directory."""
    return isinstance(root, str) and _URL.match(root) is not None


def parse_root(value: object) -> Path | str:
    """A configured root: a URL stays text, other text becomes a path.

    Raises:
        ValueError: for a URL of a service that is not known or that names no bucket, and for what is not text.
    """
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("a directory or URL must be text")
    scheme, separator, rest = value.partition(":/")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        if scheme not in SCHEMES or not rest.startswith("/") or not rest.strip("/"):
            raise ValueError(
                f"{value} is not a place for a cache: name a directory or {'://, '.join(SCHEMES)}://BUCKET/PREFIX"
            )
        return value.rstrip("/")
    return Path(value)


def absolute_root(root: Path | str) -> Path | str:
    """The root as another process, with another working directory, has to name it."""
    return root if is_url(root) else Path(root).resolve()
