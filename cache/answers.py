"""From requests to stored rows: which sequence answers a request, and what is lacking.

Reading is left to the library; a damaged object met on the way surfaces as `DamagedObject`, which the store answers
by setting the segment aside and asking again.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache.canonical import token_bytes, token_ids_of
from cache.disk.key_objects import FINISHES, KEY, Keys, Table, key_array, key_bytes, one_of_each
from cache.disk.manifests import DamagedObject
from cache.keys import KEY_BYTES, generation_key, sequence_key
from cache.library import Library
from cache.records import GenerateRequest, ScoreRequest
from cache.rows import MadeRows, Places, Positions, SpilledRows, taken

Request = GenerateRequest | ScoreRequest

ASKED_AT_ONCE = 65_536
"""Requests that the index is asked about in one go."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What the cache cannot answer.

    `generate` holds positions of requests to be written anew; `score` holds (position, sequence) whose
    log-probabilities are to be had, a stored completion that lacks them included. Of requests that one answer serves
    only one is listed. Of a cache they take 8 and 16 bytes each; sequences are read where they lie.
    """

    generate: Sequence[int]
    score: Sequence[tuple[int, ScoreRequest]]

    @property
    def written(self) -> Positions:
        """`generate` as an array."""
        return self.generate.numbers if isinstance(self.generate, Places) else np.array(self.generate, dtype=np.int64)

    @property
    def scored(self) -> Positions:
        """The positions of `score`."""
        return self.score.at if isinstance(self.score, Scores) else np.array([at for at, _ in self.score], np.int64)


class Scores(MadeRows[tuple[int, ScoreRequest]]):
    """Sequences that are to be scored, each with the position `at` of its request.

    A sequence that a teacher wrote is row `texts_at` of `texts`; where that is -1 it is the request itself.
    """

    __slots__ = ("_requests", "_texts", "_texts_at", "at")

    def __init__(self, requests: Sequence[Request], *, at: Positions, texts: SpilledRows, texts_at: Positions) -> None:
        self._requests, self.at, self._texts, self._texts_at = requests, at, texts, texts_at

    def __len__(self) -> int:
        return len(self.at)

    def made(self, start: int, stop: int) -> list[tuple[int, ScoreRequest]]:
        """See `MadeRows`."""
        at, texts_at = self.at[start:stop], self._texts_at[start:stop]
        asked = taken(self._requests, at[texts_at < 0])
        texts = taken(self._texts, texts_at[texts_at >= 0])
        made: list[tuple[int, ScoreRequest]] = []
        for position, text_at in zip(at.tolist(), texts_at.tolist(), strict=True):
            if text_at >= 0:
                prompt_len, *token_ids = token_ids_of(next(texts))
                made.append((position, ScoreRequest(tuple(token_ids), prompt_len)))
            else:
                request = next(asked)
                assert isinstance(request, ScoreRequest)
                made.append((position, request))
        return made


@dataclass(slots=True)
class _Lacking:
    """Requests that nothing answers, 48 bytes each; `written` are positions of those that a teacher wrote itself."""

    positions: array[int] = field(default_factory=lambda: array("q"))
    limits: array[int] = field(default_factory=lambda: array("q"))
    names: bytearray = field(default_factory=bytearray)
    written: array[int] = field(default_factory=lambda: array("q"))

    def add(self, position: int, name: bytes, *, limit: int = 0, written: bool = False) -> None:
        self.positions.append(position)
        self.limits.append(limit)
        self.names += name
        if written:
            self.written.append(position)

    def one_of_each(self) -> tuple[Positions, Keys]:
        """Position and name of those with the highest limit of their name, the first among equals."""
        names = np.frombuffer(self.names, dtype=KEY)
        kept = one_of_each(names, limits=np.frombuffer(self.limits, dtype=np.int64))
        return np.frombuffer(self.positions, dtype=np.int64)[kept], names[kept]


class Answers:
    """The stored answers of one library. Remembers the prefixes that it handed out, so that they can be read."""

    def __init__(self, library: Library, *, identity: str) -> None:
        self._library = library
        self._identity = identity
        self._prefixes: dict[bytes, tuple[bytes, int]] = {}
        self._prompts: set[bytes] = set()
        """Imported generations that were compared with the prompt of their request."""

    def missing(self, requests: Sequence[Request], *, k: int) -> Missing:
        """What a teacher must be asked; see `TeacherCache.missing`."""
        written, scored = _Lacking(), _Lacking()
        # A million at once would have a million names, keys and entries at once.
        for first in range(0, len(requests), ASKED_AT_ONCE):
            block = requests[first : first + ASKED_AT_ONCE]
            names = self._names(block)
            keys = self._resolve(block, names)
            told = zip(block, names, keys, self.stored_k(keys), strict=True)
            for position, (request, name, key, stored) in enumerate(told, first):
                if stored >= k:
                    continue
                if isinstance(request, ScoreRequest):
                    scored.add(position, name)
                elif key is not None and stored >= 0:
                    scored.add(position, key, written=True)
                else:
                    written.add(position, name, limit=request.max_new_tokens)
        positions, _ = written.one_of_each()
        return Missing(Places(np.sort(positions)), self._scores(requests, scored))

    def _scores(self, requests: Sequence[Request], lacking: _Lacking) -> Scores:
        """What is to be scored, with the sequences that the teacher wrote itself."""
        at, names = lacking.one_of_each()
        own = np.isin(at, np.array(lacking.written, dtype=np.int64))
        texts, texts_at = SpilledRows(), np.full(len(at), -1)
        texts_at[own] = np.arange(np.count_nonzero(own))
        for request, key in zip(taken(requests, at[own]), names[own], strict=True):
            assert isinstance(request, GenerateRequest)
            name = bytes(key).ljust(KEY_BYTES, b"\0")
            texts.append(token_bytes((len(request.prompt_ids), *self._tokens(name))))
        return Scores(requests, at=at, texts=texts, texts_at=texts_at)

    def keys(self, requests: Sequence[Request]) -> list[bytes | None]:
        """The sequence key of each request, `None` for a completion that was never written far enough."""
        return self._resolve(requests, self._names(requests))

    def _names(self, requests: Sequence[Request]) -> list[bytes]:
        """Generation key or sequence key of each request."""
        return [
            generation_key(self._identity, request)
            if isinstance(request, GenerateRequest)
            else sequence_key(self._identity, request.token_ids, request.prompt_len)
            for request in requests
        ]

    def _resolve(self, requests: Sequence[Request], names: Sequence[bytes]) -> list[bytes | None]:
        """The sequence key of each request; `None` for a completion that was never written (or not far enough)."""
        limits = np.array([_limit(request) for request in requests], dtype=np.int64)
        with self._library.disk_errors():
            answers = self._library.index.find_generations(key_array(names), limits=limits)
        self._check_prompts(requests, names, answers)
        there = (answers["segment"] >= 0).tolist()
        sequences, lengths = key_bytes(answers["sequence"]), answers["response_len"].tolist()
        keys: list[bytes | None] = []
        for at, request in enumerate(requests):
            if isinstance(request, ScoreRequest):
                keys.append(names[at])
            elif not there[at]:
                keys.append(None)
            elif lengths[at] <= request.max_new_tokens:
                keys.append(sequences[at])
            else:
                keys.append(self._prefix(sequences[at], length=len(request.prompt_ids) + request.max_new_tokens))
        return keys

    def _check_prompts(self, requests: Sequence[Request], names: Sequence[bytes], answers: Table) -> None:
        """An imported answer begins with the prompt that it is asked for by, which only whoever asks can tell.

        Raises:
            DamagedObject: it is the answer to another prompt.
        """
        numbers = np.unique(answers["segment"][answers["segment"] >= 0]).tolist()
        imported = [number for number in numbers if self._library.segment(number).manifest.imported]
        asked = [
            (at, request)
            for at in np.flatnonzero(np.isin(answers["segment"], imported)).tolist()
            if isinstance(request := requests[at], GenerateRequest) and names[at] not in self._prompts
        ]
        if not asked:
            return
        entries = self.locate(key_bytes(answers["sequence"][[at for at, _ in asked]]))
        for (at, request), entry in zip(asked, entries, strict=True):
            length = len(request.prompt_ids)
            same = entry["segment"] >= 0 and entry["prompt_len"] == length
            if not (same and tuple(self._read_tokens(entry, length=length).tolist()) == request.prompt_ids):
                segment = self._library.segment(int(answers["segment"][at])).manifest.uuid
                raise DamagedObject(segment, "generations", "an imported answer belongs to another prompt than it says")
            self._prompts.add(names[at])

    def cut(self, keys: Sequence[bytes]) -> int:
        """How many of these keys name prefixes of longer sequences, which only this instance knows by them."""
        return sum(key in self._prefixes for key in keys)

    def _prefix(self, key: bytes, *, length: int) -> bytes | None:
        """The key of the first `length` tokens of a stored sequence, remembered so that it can be read."""
        entry = self.locate([key])[0]
        if entry["segment"] < 0:
            return None
        tokens = self._read_tokens(entry, length=length)
        prefix = sequence_key(self._identity, tokens, int(entry["prompt_len"]))
        self._prefixes[prefix] = (key, length)
        return prefix

    def _tokens(self, key: bytes) -> tuple[int, ...]:
        entry = self.locate([key])[0]
        return tuple(self._read_tokens(entry, length=int(entry["length"])).tolist())

    def _read_tokens(self, entry: np.void, *, length: int) -> NDArray[np.int32]:
        return self._library.tokens(int(entry["segment"]), row=int(entry["row"]), length=length)

    def stored_k(self, keys: Sequence[bytes | None]) -> list[int]:
        """The k of each key's fullest row, -1 where there is none."""
        entries = self.locate([bytes(KEY_BYTES) if key is None else key for key in keys])
        held: list[int] = np.where(entries["segment"] >= 0, entries["k"], -1).tolist()
        return held

    def locate(self, keys: Sequence[bytes], *, k: int | None = None) -> Table:
        """The index entry of each key, prefixes included; `segment` is -1 where there is none.

        With `k` it is for somebody who needs no more: a fill's row that has so much comes before any rollout's.
        """
        with self._library.disk_errors():
            entries = self._library.index.find_sequences(key_array(keys), k=k)
        cut = [at for at, key in enumerate(keys) if key in self._prefixes] if self._prefixes else []
        if not cut:
            return entries
        with self._library.disk_errors():
            wholes = self._library.index.find_sequences(key_array([self._prefixes[keys[at]][0] for at in cut]), k=k)
        for at, whole in zip(cut, wholes, strict=True):
            if whole["segment"] < 0:
                continue
            if entries["segment"][at] < 0 or entries["k"][at] < whole["k"]:
                entries[at] = whole
                entries["key"][at], entries["length"][at] = keys[at], self._prefixes[keys[at]][1]
                entries["finish"][at] = FINISHES.index("length")
            # A text that was also scored by itself is the beginning of an answer all the same.
            entries["finish"][at] = min(entries["finish"][at], FINISHES.index("length"))
        return entries


def _limit(request: Request) -> int:
    return request.max_new_tokens if isinstance(request, GenerateRequest) else 0
