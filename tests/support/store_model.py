"""What a store holds and must answer, as `store_machine` keeps account of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from signal_builders import CLASSES, TAGS, ask
from store_builders import STOP, TEACHER, make_request

from cache.disk.key_objects import FINISHES, KeyTables, key_bytes
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import read_manifest
from cache.keys import generation_key, sequence_key
from cache.records import GenerateRequest
from cache.signals import signal_key

DIGEST = TEACHER.digest()
ENDLESS = 99


def completion(prompt: int, *, length: int) -> tuple[GenerateRequest, list[int], str]:
    """What the teacher would say: a fixed text of five tokens, cut by the limit."""
    text = [10 + prompt, 20 + prompt, 30 + prompt, 40 + prompt, STOP]
    request = make_request([3, 4, 5 + prompt], limit=length)
    return request, [*request.prompt_ids, *text[:length]], "stop" if length >= 5 else "length"


def key_of(prompt: int, *, length: int) -> bytes:
    return sequence_key(DIGEST, np.array(completion(prompt, length=length)[1], dtype=np.int32), 3)


TEXTS = {key_of(prompt, length=length): (prompt, length) for prompt in range(2) for length in (2, 5)}
SIGNALS = {
    signal_key(DIGEST, request): request
    for request in (ask([3, 4, 5 + prompt], signal) for prompt in range(2) for signal in (CLASSES, TAGS))
}
"""What may be asked beside: one row a text, and one a token."""

GENERATIONS = [generation_key(DIGEST, completion(prompt, length=1)[0]) for prompt in range(2)]


@dataclass(slots=True)
class Facts:
    """What a segment held when it was made: sequences, or signals, with (k, finish), generations with (sequence, reach)."""

    rows: dict[bytes, tuple[int, int]]
    answers: list[tuple[bytes, bytes, int]]
    rollout: bool
    hurt: bool = False

    @classmethod
    def of(cls, storage: LocalStorage, uuid: str) -> Facts:
        manifest = read_manifest(storage, uuid, identity=DIGEST)
        tables = KeyTables(storage.read(f"manifests/{uuid}.keys"), manifest)
        ks, finishes = tables.entries["k"].tolist(), tables.entries["finish"].tolist()
        stop = FINISHES.index("stop")
        reach = np.where(tables.generations["finish"] == stop, ENDLESS, tables.generations["response_len"])
        names, sequences = key_bytes(tables.generations["key"]), key_bytes(tables.generations["sequence"])
        return cls(
            rows=dict(zip(key_bytes(tables.keys), zip(ks, finishes, strict=True), strict=True)),
            answers=list(zip(names, sequences, reach.tolist(), strict=True)),
            rollout=manifest.rollout is not None,
        )


@dataclass(slots=True)
class Union:
    """The same over several segments: of a sequence the largest k and the smallest finish, of a generation the reach."""

    rows: dict[bytes, tuple[int, int]]
    reach: dict[bytes, int]

    @classmethod
    def of(cls, parts: Iterable[Facts], *, without: bytes | None = None) -> Union:
        rows: dict[bytes, tuple[int, int]] = {}
        reach: dict[bytes, int] = {}
        parts = list(parts)
        for part in parts:
            for key, (k, finish) in part.rows.items():
                if key != without:
                    known = rows.get(key, (k, finish))
                    rows[key] = max(known[0], k), min(known[1], finish)
        for part in parts:
            for name, sequence, length in part.answers:
                if sequence in rows:
                    reach[name] = max(reach.get(name, 0), length)
        return cls(rows, reach)

    def count(self, *, signals: bool) -> int:
        """How many rows there are of one kind."""
        return sum((key in SIGNALS) == signals for key in self.rows)

    def within(self, other: Union) -> bool:
        """Whether the other answers at least what this one does."""
        return all(
            key in other.rows and other.rows[key][0] >= k and other.rows[key][1] <= finish
            for key, (k, finish) in self.rows.items()
        ) and all(other.reach.get(name, 0) >= length for name, length in self.reach.items())
