"""How many rows a cache holds, of both kinds, and what some of them took."""

from __future__ import annotations

from pathlib import Path

from signal_builders import CLASSES, ask, respond
from store_builders import VOCAB, make_record, open_cache

from cache.disk.spending import Spent

TEXT = (5, 6, 7)


def test_both_kinds_are_counted_and_tokens_are_those_of_sequences(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.put([make_record([3, 4, 5, 6], prompt_len=2)], vocab=VOCAB)
    sequences = cache.stats()
    cache.signals.put([respond(ask(TEXT, CLASSES))])
    both = cache.stats()
    assert (sequences.records, sequences.signals, sequences.segments) == (1, 0, 1)
    assert (both.records, both.signals, both.segments) == (1, 1, 2)
    assert (both.tokens, both.response_tokens, both.bytes_per_token) == (4, 2, sequences.bytes_per_token)
    assert both.bytes > sequences.bytes


def test_rows_have_the_share_of_their_tokens_and_each_counts_once(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    records = [make_record([prompt, 9, 9, 1], prompt_len=1) for prompt in (5, 6)]
    with cache.writer(vocab=VOCAB) as writer:
        for record in records:
            writer.add(record)
        writer.commit(Spent(4.0, 8.0, 100.0))
    keys = [record.key for record in records]
    assert cache.spent([keys[0], keys[0], b"x" * 32], k=0) == (4, Spent(2.0, 4.0, 50.0))
    assert cache.spent(keys, k=0) == (8, Spent(4.0, 8.0, 100.0))
