"""The directory of one teacher below the cache root: made, recognised, and pinned by views."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path

from cache.durable import link_exclusively, sync_directory, write_new
from cache.identity import TeacherIdentity
from cache.manifests import FORMAT
from cache.views import CacheView
from configs.errors import CacheError, ConfigError

FOLDERS = ("staging", "segments", "manifests", "quarantine", "pins")


def open_directory(root: Path, identity: TeacherIdentity, *, create: bool) -> Path:
    """The teacher's directory, made first when `create` is set.

    Raises:
        ConfigError: when the place cannot be used.
        CacheError: when it belongs to another format or teacher, or is not there and `create` is off.
    """
    directory = root / identity.digest()
    described = directory / "identity.json"
    try:
        if create:
            for folder in FOLDERS:
                (directory / folder).mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise ConfigError(f"{directory}: not writable: fix its permissions or set runtime.cache_root")
            if not described.exists():
                _describe(described, identity)
        text = described.read_bytes()
    except FileNotFoundError as error:
        raise CacheError(
            f"{directory}: no cache of this teacher: run `distill fill`, or check runtime.cache_root"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be used as a cache ({error.strerror}): set runtime.cache_root to a writable directory"
        ) from error
    _recognise(text, identity, path=described)
    return directory


def pin_view(directory: Path, view: CacheView) -> None:
    """Leave a pin that names the view and its segments, so that nobody deletes them while it lives.

    Raises:
        CacheError: when the pin cannot be written.
    """
    pin = directory / "pins" / f"{view.digest}.json"
    text = json.dumps({"view": view.digest, "dataset": view.dataset, "segments": view.segments}).encode()
    try:
        _create(pin, text)
    except OSError as error:
        raise CacheError(f"{pin}: the view cannot be pinned ({error.strerror}): make the cache writable") from error


def _describe(path: Path, identity: TeacherIdentity) -> None:
    body = {"format": FORMAT, "digest": identity.digest(), "identity": asdict(identity)}
    _create(path, json.dumps(body, indent=2, sort_keys=True).encode() + b"\n")


def _create(path: Path, data: bytes) -> None:
    """Create a file that says the same whoever writes it, unless somebody did."""
    if path.exists():
        return
    beside = path.with_name(f".{path.name}.{uuid.uuid4()}.tmp")
    write_new(beside, data)
    try:
        link_exclusively(beside, path)
    except FileExistsError:
        return
    finally:
        beside.unlink()
        sync_directory(path.parent)


def _recognise(text: bytes, identity: TeacherIdentity, *, path: Path) -> None:
    try:
        body = json.loads(text)
        version, digest = body["format"], body["digest"]
        stored = body["identity"] if version == FORMAT else None
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path}: not readable as JSON: delete this file, it is written anew") from error
    if version != FORMAT:
        raise CacheError(
            f"{path}: written in format {version}, this version reads format {FORMAT}: upgrade stillroom or use "
            "another runtime.cache_root"
        )
    if digest != identity.digest() or stored != asdict(identity):
        raise CacheError(f"{path}: does not describe the teacher it stands for: delete this file, it is written anew")
