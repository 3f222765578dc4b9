"""What is kept says what it is, in which version it was written, and what it consists of.

A document (an evaluation, a report) is a JSON object with the name of its schema, the digest that it is addressed by
and the SHA-256 of all its other fields. A directory (an untouched or a trained student) has such a document in it,
written last, that lists every file with its size and SHA-256. Only what still says the same is shown or used again;
what was cut, edited or swapped is named and made anew, and what an older version wrote is made anew.

Hashes of files are remembered by what the file system says of them (`FileDigests`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.disk.durable import replace_file
from cache.fingerprint import file_stamp
from configs import ConfigError
from configs.places import SUMMARY
from configs.regular_files import UnreadableFileError, open_regular, read_json
from configs.visible_text import visible

BLOCK = 2**22
MEMO_FORMAT = 1

LOADED = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".model", ".txt", ".py")
"""Files that change what a model directory loads as, wherever they come from."""

logger = logging.getLogger(__name__)


class OutdatedError(ConfigError):
    """Something that is kept cannot be used: it is not what was written, or another version wrote it."""


@dataclass(frozen=True, slots=True)
class FileDigests:
    """SHA-256 of files, remembered in a file of its own as long as nothing about them changes."""

    memo: Path

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The digest of each file.

        Raises:
            UnreadableFileError: one is not a regular file.
            OSError: one is missing or cannot be read.
        """
        known = self._read()
        found: dict[Path, str] = {}
        fresh: dict[str, dict[str, object]] = {}
        for path in paths:
            name = os.path.abspath(path)
            stamp = file_stamp(path)
            entry = known.get(name)
            if entry is not None and entry["stamp"] == stamp:
                found[path] = str(entry["sha256"])
                continue
            found[path] = file_sha256(path)
            if file_stamp(path) == stamp:
                fresh[name] = {"stamp": stamp, "sha256": found[path]}
        if fresh:
            self._write({name: entry for name, entry in known.items() if os.path.exists(name)} | fresh)
        return found

    def _read(self) -> dict[str, dict[str, object]]:
        try:
            held = read_json(self.memo)
        except (OSError, UnreadableFileError):
            return {}
        files = held.get("files") if isinstance(held, dict) and held.get("format") == MEMO_FORMAT else None
        if not isinstance(files, dict):
            return {}
        return {
            name: entry
            for name, entry in files.items()
            if isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and "stamp" in entry
        }

    def _write(self, files: Mapping[str, Mapping[str, object]]) -> None:
        try:
            self.memo.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.memo, json.dumps({"format": MEMO_FORMAT, "files": files}).encode())
        except OSError as error:
            # Nothing but time is lost.
            logger.info("%s cannot be written (%s): files are hashed again next time", self.memo, error.strerror)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; links are followed to a regular file.

    Raises:
        UnreadableFileError: it is not one.
        OSError: it is missing or cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path, links="follow") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sealed(schema: str, digest: str, fields: Mapping[str, object]) -> dict[str, object]:
    """`fields` as a document of `schema` that is addressed by `digest` and can be distinguished from an edited one."""
    document = {"schema": schema, "digest": digest, **fields}
    return {**document, "sha256": _seal(document)}


def read_sealed(path: Path, *, schema: str, digest: str | None = None) -> dict[str, object] | None:
    """The fields of a document; None where there is none. Without `digest` it may be addressed by anything.

    Raises:
        OutdatedError: it is of another schema or address, or not what was written.
    """
    found = read_addressed(path, schema=schema)
    if found is None:
        return None
    address, fields = found
    if digest is not None and address != digest:
        raise OutdatedError(f"{path}: belongs to {visible(address)[:16]}, not to {digest[:16]}")
    return fields


def read_addressed(path: Path, *, schema: str) -> tuple[str, dict[str, object]] | None:
    """What a document is addressed by, and its fields; None where there is none.

    Raises:
        OutdatedError: it is of another schema, or not what was written.
    """
    try:
        document = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutdatedError(f"{path} cannot be read ({error.strerror})") from error
    except UnreadableFileError as error:
        raise OutdatedError(str(error)) from error
    if not isinstance(document, dict):
        raise OutdatedError(f"{path}: is not a JSON object")
    seal, named = document.pop("sha256", None), document.get("schema")
    if named != schema:
        raise OutdatedError(f"{path}: was written by another version ({named or 'no schema'}, this one has {schema})")
    if seal != _seal(document):
        raise OutdatedError(f"{path}: was edited or damaged, it is not what was written")
    fields = {name: value for name, value in document.items() if name not in ("schema", "digest")}
    return str(document.get("digest")), fields


def seal_directory(folder: Path, *, schema: str, digest: str, fields: Mapping[str, object]) -> None:
    """Write down what a finished directory consists of; from then on it counts."""
    listed = {name: [(folder / name).stat().st_size, file_sha256(folder / name)] for name in _files(folder)}
    document = sealed(schema, digest, {**fields, "files": listed})
    replace_file(folder / SUMMARY, json.dumps(document, indent=2).encode())


def read_directory(folder: Path, *, schema: str, digest: str, digests: FileDigests) -> dict[str, object] | None:
    """The fields of a finished directory whose files are all as they were; None where nothing says that it is finished.

    Raises:
        OutdatedError: it is of another version or address, or a file is missing, changed or was added.
    """
    fields = read_sealed(folder / SUMMARY, schema=schema, digest=digest)
    if fields is None:
        return None
    listed = fields.pop("files", None)
    # A seal is no signature: whoever can write here can seal anything.
    if not isinstance(listed, dict) or not all(map(_is_size_and_digest, listed.values())):
        raise OutdatedError(f"{folder / SUMMARY}: does not list the files that belong to it")
    for name, (size, _) in listed.items():
        path = folder / name
        if not path.is_file():
            raise OutdatedError(f"{path}: is missing")
        if path.stat().st_size != size:
            raise OutdatedError(f"{path}: has {path.stat().st_size:,} bytes and not the {size:,} that were written")
    added = [name for name in _files(folder) if name not in listed and name.endswith(LOADED)]
    if added:
        raise OutdatedError(f"{folder / added[0]}: was added, and changes what is loaded")
    try:
        found = digests.of([folder / name for name in listed])
    except (OSError, UnreadableFileError) as error:
        raise OutdatedError(f"{folder}: cannot be read ({error})") from error
    for name, (_, sha256) in listed.items():
        if found[folder / name] != sha256:
            raise OutdatedError(f"{folder / name}: was edited or damaged, it is not what was written")
    return fields


def _is_size_and_digest(listed: object) -> bool:
    return isinstance(listed, list) and [type(each) for each in listed] == [int, str]


def _files(folder: Path) -> list[str]:
    """Names of the files that count, relative to the folder. People write on a model card before they publish it."""
    files = (path for path in folder.rglob("*") if (path.is_symlink() or not path.is_dir()) and path.name[0] != ".")
    names = sorted(str(path.relative_to(folder)) for path in files)
    return [name for name in names if name not in (SUMMARY, "README.md")]


def _seal(document: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
