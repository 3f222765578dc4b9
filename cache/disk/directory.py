"""The place of one teacher below the cache root: made and recognised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.disk.manifests import FORMAT
from cache.disk.roots import open_storage
from cache.disk.storage import Storage
from cache.identity import Identity, parse_identity
from configs.errors import CacheError, ConfigError
from configs.regular_files import UnreadableFileError, parse_json
from configs.visible_text import visible

DESCRIPTION = "identity.json"
FINGERPRINT = "fingerprint.json"
"""What a teacher said when it was first asked, whose weights nobody can hash."""


def open_directory(root: Path | str, identity: Identity, *, create: bool) -> Storage:
    """The teacher's objects; their place is made first when `create` is set.

    Raises:
        ConfigError: when the place cannot be used.
        CacheError: when it belongs to another format or teacher, or is not there and `create` is off.
    """
    storage = open_storage(root, identity.digest(), create=create)
    try:
        _recognise(_description(storage, identity, create=create), identity, storage=storage)
    except UnreadableFileError as error:
        raise CacheError(f"{error}: delete it, it is written anew") from error
    except FileNotFoundError as error:
        raise CacheError(
            f"{storage.place}: no cache of this teacher: run `distill fill`, or check runtime.cache_root"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{storage.place}: cannot be used as a cache ({error.strerror}): set runtime.cache_root to a place that "
            "can be written"
        ) from error
    return storage


def read_identity(storage: Storage) -> Identity:
    """Who the teacher of this place is.

    Raises:
        CacheError: when the place does not say, or says what cannot be.
    """
    path = f"{storage.place}/{DESCRIPTION}"
    try:
        return parse_description(storage.read(DESCRIPTION), path=path)
    except UnreadableFileError as error:
        raise CacheError(f"{error}: delete it, a fill writes it anew") from error
    except OSError as error:
        raise CacheError(f"{path}: cannot be read ({error.strerror or error}): check runtime.cache_root") from error


def kept_fingerprint(storage: Storage, now: Mapping[str, Any]) -> Any:
    """What the teacher of this place said when it was first asked: `now`, where nobody had asked it before.

    Raises:
        CacheError: what is kept cannot be read, or nothing can be written.
    """
    try:
        # Another process may come first, and counts then.
        with suppress(FileExistsError):
            storage.create(FINGERPRINT, json.dumps({"format": FORMAT, "said": now}).encode() + b"\n")
        return parse_fingerprint(storage.read(FINGERPRINT), path=f"{storage.place}/{FINGERPRINT}")
    except OSError as error:
        raise CacheError(f"{storage.place}/{FINGERPRINT}: cannot be kept ({error.strerror or error})") from error


def parse_fingerprint(text: bytes, *, path: str) -> Any:
    """What a teacher said when it was first asked, of a `fingerprint.json`.

    Raises:
        CacheError: it is not one.
    """
    try:
        body: Any = parse_json(text, origin=path)
        if body["format"] != FORMAT:
            raise ValueError(f"of format {_shown(body['format'])}")
        return body["said"]
    except (UnreadableFileError, ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path}: not readable as what the teacher said first: delete it only if you know that the same model "
            "still answers, it is written anew"
        ) from error


def parse_description(text: bytes, *, path: str) -> Identity:
    """The identity of an `identity.json`, by its own fields and not by the digest that it gives.

    Raises:
        CacheError: when it is of another format, or its digest is not that of its fields.
    """
    try:
        body: Any = parse_json(text, origin=path)
        version, digest = body["format"], body["digest"]
        identity = parse_identity(body["identity"]) if version == FORMAT else None
        known = identity is not None and identity.digest() == digest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"{path}: names no teacher") from error
    if identity is None:
        raise CacheError(f"{path}: of format {_shown(version)}, this version reads format {FORMAT}: upgrade stillroom")
    if not known:
        raise CacheError(f"{path}: its fields are not those of teacher {_shown(digest)}")
    return identity


def _description(storage: Storage, identity: Identity, *, create: bool) -> bytes:
    try:
        return storage.read(DESCRIPTION)
    except FileNotFoundError:
        if not create:
            raise
    body = {"format": FORMAT, "digest": identity.digest(), "identity": asdict(identity)}
    # Another process of the same teacher may come first; it writes the same.
    with suppress(FileExistsError):
        storage.create(DESCRIPTION, json.dumps(body, indent=2, sort_keys=True).encode() + b"\n")
    return storage.read(DESCRIPTION)


def _recognise(text: bytes, identity: Identity, *, storage: Storage) -> None:
    path = f"{storage.place}/{DESCRIPTION}"
    try:
        body: Any = parse_json(text, origin=path)
        version, digest = body["format"], body["digest"]
        stored = body["identity"] if version == FORMAT else None
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path}: not readable as JSON: delete this file, it is written anew") from error
    if version != FORMAT:
        raise CacheError(
            f"{path}: written in format {_shown(version)}, this version reads format {FORMAT}: upgrade stillroom or "
            "use another runtime.cache_root"
        )
    if digest != identity.digest():
        raise CacheError(
            f"{path}: holds teacher {_shown(digest)}, not {identity.digest()}: move it back to its own directory"
        )
    if stored != asdict(identity):
        raise CacheError(
            f"{path}: what it says of teacher {digest} is not what that digest stands for: delete this file, it is "
            "written anew"
        )


def _shown(value: object) -> str:
    """What somebody else's file says, for messages."""
    return visible(str(value), at_most=80)
