"""What was forgotten, so that no fill, door or archive brings it back.

`erasures/<uuid>.json` below the cache root is a note of names: SHA-256 of token ids, and never a text. Names know no
teacher, so what was forgotten of one is not asked of another that reads the same tokens: an assistant, the teacher once
it was tuned, the same model in another precision. There are two kinds of names:

- *held*: these tokens hold what was forgotten. What is these tokens, or has them as its prompt, or as the first text of
  a pair, is not asked and not taken in.
- *asked*: an answer to this prompt held it, which may be written again. Nobody asks the prompt; what else there is of
  it stays.

Notes are only ever added, each whole when its name appears, before anything is deleted: an erasure that is killed is
remembered and has to be run again. One that cannot be read is an error: what it names might come back. Who can guess a
short text whole, with its template, can find it by its name.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.canonical import canonical, token_bytes
from cache.disk.roots import open_root
from cache.disk.storage import Storage
from cache.records import GenerateRequest, ScoreRequest
from cache.signals import SignalRequest
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json

FORMAT = 1

FOLDER = "erasures"

NAMES = 100_000
"""Names of one note at most."""

LARGEST_NOTE = 2**24
"""Bytes of a note at most: `NAMES` of 64 digits, quotes and a comma, twice."""

FORGOTTEN = "it was forgotten (`distill cache forget`) and is not asked again"

Tokens = NDArray[np.integer[Any]] | Sequence[int]

AnyRequest = GenerateRequest | ScoreRequest | SignalRequest

_DIGEST = re.compile(r"[0-9a-f]{64}")


def held_name(token_ids: Tokens) -> str:
    """The name (hex) of token ids [T] that hold what was forgotten."""
    return _name("held", token_ids)


def asked_name(prompt_ids: Tokens) -> str:
    """The name (hex) of a prompt [T] whose answer held it."""
    return _name("asked", prompt_ids)


@dataclass(frozen=True, slots=True)
class Erasures:
    """All names that the notes of a cache root hold."""

    names: frozenset[str] = frozenset()

    @classmethod
    def read(cls, root: Path | str) -> Erasures:
        """The notes below a cache root, a directory or a URL; none where nothing was forgotten.

        Raises:
            CacheError: a note cannot be read, or is not what was written.
            ConfigError: the URL cannot be used.
        """
        storage = open_root(root)
        try:
            found = [name for name in storage.names(FOLDER) if name.endswith(".json")]
            return cls(frozenset().union(*(_read(storage, f"{FOLDER}/{name}") for name in found)))
        except (OSError, NotADirectoryError) as error:
            raise CacheError(
                f"{storage.place}/{FOLDER} cannot be read ({error.strerror or error}), and says what was forgotten: "
                "mend the disk, nothing is asked before"
            ) from error

    def hold(self, token_ids: Tokens, *, prompt_len: int) -> bool:
        """Whether tokens [T], or the first `prompt_len` of them, hold what was forgotten."""
        return bool(self.names) and any(
            held_name(tokens) in self.names for tokens in (token_ids, token_ids[:prompt_len])
        )

    def reason(self, request: AnyRequest) -> str | None:
        """Why nobody is asked this; None where nothing of it was forgotten."""
        return FORGOTTEN if self.names and self._covers(request) else None

    def _covers(self, request: AnyRequest) -> bool:
        if isinstance(request, GenerateRequest):
            return held_name(request.prompt_ids) in self.names or asked_name(request.prompt_ids) in self.names
        split = request.split if isinstance(request, SignalRequest) else request.prompt_len
        return self.hold(request.token_ids, prompt_len=split)

    def add(self, names: Collection[str], *, root: Path | str) -> int:
        """Write what is new of these names below a cache root, and say how many that are.

        Raises:
            CacheError: the place refuses; nothing may be deleted then.
        """
        new, storage = sorted(set(names) - self.names), open_root(root)
        try:
            for at in range(0, len(new), NAMES):
                storage.create(f"{FOLDER}/{uuid.uuid4()}.json", _note(new[at : at + NAMES]))
        except OSError as error:
            raise CacheError(
                f"{storage.place}/{FOLDER} cannot be written ({error.strerror or error}), so that what is forgotten "
                "would come back: free space or mend the disk; nothing was removed"
            ) from error
        return len(new)


def forgotten_among(refused: Mapping[Any, str]) -> int:
    """How many of the requests that are not asked were forgotten."""
    return sum(reason == FORGOTTEN for reason in refused.values())


def _name(kind: str, token_ids: Tokens) -> str:
    ids = token_ids if isinstance(token_ids, np.ndarray) else tuple(token_ids)
    return hashlib.sha256(canonical("stillroom/erasure/1", kind, token_bytes(ids))).hexdigest()


def _note(names: Iterable[str]) -> bytes:
    body = _canonical_json({"format": FORMAT, "time": time.time(), "names": list(names)})
    return f'{{"body":{body},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}'.encode()


def _read(storage: Storage, path: str) -> frozenset[str]:
    try:
        outer: Any = parse_json(storage.read(path, at_most=LARGEST_NOTE), origin=path)
        body = outer["body"]
        if hashlib.sha256(_canonical_json(body).encode()).hexdigest() != outer["sha256"]:
            raise ValueError("it differs from its own digest")
        if body["format"] != FORMAT:
            raise ValueError("it is of another format")
        names = frozenset(body["names"])
        if not all(_DIGEST.fullmatch(name) for name in names):
            raise ValueError("it names something else")
    except FileNotFoundError:
        return frozenset()  # whoever lifted it deleted it while we looked
    except (UnreadableFileError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(
            f"{storage.place}/{path}: cannot be read, and says what was forgotten ({error}): bring it back from a "
            "copy, or delete it and forget again"
        ) from error
    return names


def _canonical_json(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))
