"""Which row answers which key: the fullest, a fill's before a rollout's, the oldest among equals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cache.disk.key_objects import (
    ENTRY,
    GENERATION,
    KEY,
    KeyObject,
    KeyPrefixes,
    Keys,
    RowNumbers,
    Table,
    key_array,
    key_prefixes,
)
from cache.index import SEGMENT_FACTS, KeyIndex
from cache.keys import KEY_BYTES

A, B, ALMOST_A = b"a" * KEY_BYTES, b"b" * KEY_BYTES, b"a" * (KEY_BYTES - 1) + b"z"


class Held(KeyObject):
    """A key object in memory: (key, k) of its sequences, (key, response length, finish) of its generations."""

    def __init__(
        self, sequences: Sequence[tuple[bytes, int]] = (), generations: Sequence[tuple[bytes, int, int]] = ()
    ) -> None:
        sequences = sorted(sequences)
        self.keys = key_array([key for key, _ in sequences]) if sequences else np.empty(0, dtype=KEY)
        self.entries = np.zeros(len(sequences), dtype=ENTRY)
        self.entries["k"], self.entries["row"] = [k for _, k in sequences], range(len(sequences))
        self.entries["length"], self.entries["prompt_len"] = 5, 2
        self.held = np.zeros(len(generations), dtype=GENERATION)
        for at, (key, length, finish) in enumerate(sorted(generations)):
            self.held[at] = (key, B, length, length, finish, b"")

    def sequences(self, positions: RowNumbers) -> tuple[Keys, Table]:
        return self.keys[positions], self.entries[positions]

    def generations(self, positions: RowNumbers) -> Table:
        return self.held[positions]

    def prefixes(self) -> KeyPrefixes:
        return KeyPrefixes(key_prefixes(self.keys), key_prefixes(self.held["key"].copy()))


def index_of(
    *parts: Held, age: Sequence[int] | None = None, rollout: Sequence[int] = (), signals: Sequence[int] = ()
) -> KeyIndex:
    found = KeyIndex()
    objects: Any = [(number, part, part.prefixes()) for number, part in enumerate(parts)]
    segments = np.zeros(len(parts), dtype=SEGMENT_FACTS)
    segments["age"] = range(len(parts)) if age is None else age
    segments["rollout"], segments["signals"] = (np.isin(np.arange(len(parts)), some) for some in (rollout, signals))
    found.add(objects, segments=segments)
    return found


def test_the_fullest_row_wins_and_the_oldest_among_equals() -> None:
    index = index_of(Held([(A, 0), (B, 8)]), Held([(A, 8)]), Held([(A, 8), (B, 8)]), age=[0, 2, 1])
    assert index.find_sequences(key_array([B, A, ALMOST_A]))["segment"].tolist() == [0, 2, -1]


def test_a_row_of_a_fill_that_is_enough_goes_before_a_fuller_one_of_a_rollout() -> None:
    index = index_of(Held([(A, 4)]), Held([(A, 8)]), rollout=[1])
    keys = key_array([A])
    assert index.find_sequences(keys)["segment"].tolist() == [1]
    assert index.find_sequences(keys, k=4)["segment"].tolist() == [0]
    assert index.find_sequences(keys, k=5)["segment"].tolist() == [1]


def test_all_rows_of_a_key_are_found_and_none_that_only_begins_like_it() -> None:
    asked, rows = index_of(Held([(A, 1), (ALMOST_A, 2)]), Held([(A, 3)])).find_rows(key_array([B, A]))
    assert asked.tolist() == [1, 1]
    assert sorted(zip(rows["segment"].tolist(), rows["k"].tolist(), strict=True)) == [(0, 1), (1, 3)]


def test_a_generation_serves_what_it_reaches_and_the_oldest_answers() -> None:
    stopped, cut = 0, 1
    index = index_of(
        Held(generations=[(A, 4, cut)]), Held(generations=[(A, 9, cut)]), Held(generations=[(B, 2, stopped)])
    )
    limits = [(A, 4), (A, 5), (A, 10), (B, 10**6)]
    found = index.find_generations(
        key_array([key for key, _ in limits]), limits=np.array([limit for _, limit in limits])
    )
    assert found["segment"].tolist() == [0, 1, -1, 2]


def test_a_segment_that_is_dropped_answers_no_more() -> None:
    index = index_of(Held([(A, 8)], [(A, 4, 0)]), Held([(A, 4)]))
    assert index.count() == 1
    index.drop(0)
    index.drop(0)
    assert index.find_sequences(key_array([A]))["segment"].tolist() == [1]
    assert index.find_generations(key_array([A]), limits=np.array([1]))["segment"].tolist() == [-1]


def test_a_sample_has_different_keys_of_enough_log_probabilities() -> None:
    keys = [bytes([number]) * KEY_BYTES for number in range(1, 31)]
    index = index_of(Held([(key, 8) for key in keys[:20]]), Held([(key, 2) for key in keys]))
    found = index.sample(15, seed=3, k=8)
    assert len(found) == len(np.unique(found)) == 15 and set(found.tolist()) <= set(key_array(keys[:20]).tolist())
    assert found.tolist() == index.sample(15, seed=3, k=8).tolist() != index.sample(15, seed=4, k=8).tolist()
    assert len(index.sample(100, seed=0, k=8)) == 20 and index.count() == 30
    assert len(index.sample(0, seed=0, k=8)) == 0


def test_signals_are_counted_and_drawn_apart_from_sequences() -> None:
    index = index_of(Held([(A, 8)]), Held([(B, 77), (ALMOST_A, 77)]), Held([(B, 77)]), signals=[1, 2])
    assert (index.count(), index.count(signals=True)) == (1, 2)
    assert index.sample(10, seed=0, k=1).tolist() == [A]
    only = index_of(Held([(B, 77)]), signals=[0])
    assert (only.count(), only.count(signals=True)) == (0, 1)
    assert index_of().count(signals=True) == 0
