"""What a teacher could not answer, so that nobody starts an engine to ask it again.

`failures/<uuid>.json` in a teacher's place is a note of requests that one version of its engine could not answer. Notes
are only ever added, each whole when its name appears, so any number of pipelines may write them; on another version of
the engine everything is asked again, once. They name requests by hashes and never hold a text. Losing one costs an
engine start; the truth about answers is what is stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cache.canonical import canonical
from cache.disk.storage import Storage
from cache.keys import generation_key, sequence_key
from cache.protocols import without_quotes
from cache.records import GenerateRequest, ScoreRequest
from cache.signals import SignalRequest, signal_key
from configs.regular_files import UnreadableFileError, parse_json
from configs.visible_text import REASON_CHARACTERS, visible

FORMAT = 1

ENTRIES = 10_000
"""Requests of one note at most."""

LARGEST_NOTE = 2**26
"""Bytes of a note at most: those of `ENTRIES` reasons of the most costly characters, several times."""

AnyRequest = GenerateRequest | ScoreRequest | SignalRequest

Asked = TypeVar("Asked", bound=AnyRequest)

EngineVersion = Mapping[str, str | int | float]
"""What decides whether an engine can answer a request: its release, and how it is laid out."""

_DIGEST = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FailureNote:
    """One object: reasons by the names of their requests, all of one version of the engine."""

    identity: str
    engine: EngineVersion
    time: float
    reasons: Mapping[str, str]

    def to_json(self) -> bytes:
        """As it stands on disk."""
        entries = [[name, reason] for name, reason in self.reasons.items()]
        body = _canonical_json(
            {
                "format": FORMAT,
                "identity": self.identity,
                "engine": dict(self.engine),
                "time": self.time,
                "failures": entries,
            }
        )
        return f'{{"body":{body},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}'.encode()


class Failures:
    """What one teacher could not answer with one version of its engine."""

    def __init__(self, storage: Storage, *, identity: str, engine: EngineVersion) -> None:
        self._storage, self._identity, self._engine = storage, identity, dict(engine)
        self._reasons: dict[str, str] = {}
        try:
            for note in read_failures(storage, identity=identity):
                if dict(note.engine) == self._engine:
                    self._reasons = {**note.reasons, **self._reasons}
        except OSError as error:
            _log.warning("%s/failures cannot be read (%s): what it names is asked again", storage.place, error)

    def reason(self, request: AnyRequest) -> str | None:
        """Why the teacher could not answer `request`; None when nothing says that it could not."""
        return self._reasons.get(self._name(request)) if self._reasons else None

    def add(self, failed: Mapping[Asked, str]) -> None:
        """Keep what could not be answered, without what a reason quotes of others.

        Where the disk does not take it a warning is logged, and it is asked again.
        """
        said = {self._name(request): reason for request, reason in failed.items()}
        new = {
            name: visible(without_quotes(reason), at_most=REASON_CHARACTERS)
            for name, reason in said.items()
            if name not in self._reasons
        }
        if not new:
            return
        self._reasons |= new
        entries = list(new.items())
        try:
            for at in range(0, len(entries), ENTRIES):
                part = dict(entries[at : at + ENTRIES])
                note = FailureNote(self._identity, self._engine, time.time(), part)
                self._storage.create(f"failures/{uuid.uuid4()}.json", note.to_json())
        except OSError as error:
            place = self._storage.place
            _log.warning("%s/failures cannot be written (%s): what could not be answered is asked again", place, error)

    def _name(self, request: AnyRequest) -> str:
        """The name (hex) of a request; an answer that may be longer is another one."""
        limit = 0
        key: bytes
        if isinstance(request, GenerateRequest):
            key, limit = generation_key(self._identity, request), request.max_new_tokens
        elif isinstance(request, SignalRequest):
            key = signal_key(self._identity, request)
        else:
            key = sequence_key(self._identity, request.token_ids, request.prompt_len)
        return hashlib.sha256(canonical("stillroom/failure/1", key, limit)).hexdigest()


def read_failures(storage: Storage, *, identity: str) -> Iterator[FailureNote]:
    """The notes of a teacher, of all versions of its engine; what is damaged or of another format is left out.

    Raises:
        OSError: when the place cannot be read.
    """
    for name in storage.names("failures"):
        if not name.endswith(".json"):
            continue
        path = f"failures/{name}"
        try:
            note = _parse(parse_json(storage.read(path, at_most=LARGEST_NOTE), origin=path))
        except FileNotFoundError:
            continue
        except (UnreadableFileError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s/%s is left out: %s", storage.place, path, visible(str(error), at_most=REASON_CHARACTERS))
            continue
        if note.identity == identity:
            yield note


def count_failures(storage: Storage, *, identity: str) -> dict[str, int]:
    """Requests that could not be answered, by the version of the engine in words.

    Raises:
        OSError: when the place cannot be read.
    """
    found = dict[str, set[str]]()
    for note in read_failures(storage, identity=identity):
        found.setdefault(in_words(note.engine), set()).update(note.reasons)
    return {engine: len(names) for engine, names in sorted(found.items())}


def in_words(engine: EngineVersion) -> str:
    """A version of an engine in one line."""
    return visible(", ".join(f"{key}={value}" for key, value in sorted(engine.items())), at_most=REASON_CHARACTERS)


def drop_failures(storage: Storage) -> None:
    """Forget all of them, so that everything is asked again. One that is written meanwhile may stay.

    Raises:
        OSError: when the place refuses.
    """
    for name in storage.names("failures"):
        storage.delete(f"failures/{name}")


def _parse(outer: Any) -> FailureNote:
    body = outer["body"]
    if hashlib.sha256(_canonical_json(body).encode()).hexdigest() != outer["sha256"]:
        raise ValueError("it differs from its own digest")
    if body["format"] != FORMAT:
        raise ValueError("it is of another format")
    entries: Sequence[Any] = body["failures"]
    reasons = {name: reason for name, reason in entries if _DIGEST.fullmatch(name) and isinstance(reason, str)}
    engine = {str(key): value for key, value in body["engine"].items() if isinstance(value, str | int | float)}
    return FailureNote(str(body["identity"]), engine, float(body["time"]), reasons)


def _canonical_json(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))
