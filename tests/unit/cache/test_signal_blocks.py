from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from signal_builders import CLASSES, SPANS, STATES, ask, assert_same_signal, respond, some_requests
from store_builders import VOCAB, make_record, open_cache

from cache.library import Library
from cache.signal_blocks import read_signals
from configs.errors import RecordError


def library(root: Path) -> Library:
    return open_cache(root)._library


def test_a_block_is_its_records_laid_flat(tmp_path: Path) -> None:
    records = [respond(request) for request in some_requests(9)]
    open_cache(tmp_path).signals.put(records[::2])
    open_cache(tmp_path).signals.put(records[1::2])
    cache = open_cache(tmp_path)
    entries = cache._answers.locate([record.key for record in records])
    block = cache._library.read_signals(entries, with_tokens=True)
    assert len(block) == len(records)
    for found, original in zip(block.records(), records, strict=True):
        assert_same_signal(found, original)
    assert block.asked() == [record.signal for record in records]
    np.testing.assert_array_equal(block.values, np.concatenate([record.values for record in records]))
    assert block.offsets.tolist() == np.cumsum([0, *(len(record.values) for record in records)]).tolist()
    bare = cache._library.read_signals(entries, with_tokens=False)
    assert bare.token_ids is bare.token_offsets is None
    assert bare.values.tobytes() == block.values.tobytes()
    with pytest.raises(AssertionError, match="without tokens"):
        bare.records()


def test_nothing_is_a_block_too(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    block = cache._library.read_signals(cache._answers.locate([]), with_tokens=True)
    assert len(block) == 0 and block.records() == []


def test_what_does_not_make_up_one_block_is_refused(tmp_path: Path) -> None:
    wide, narrow = respond(ask([3, 4], STATES[0]), width=6), respond(ask([3, 4], CLASSES), width=3)
    cache = open_cache(tmp_path)
    for record in (wide, narrow):
        cache.signals.put([record])
    sequence = make_record([3, 4, 5], prompt_len=1)
    cache.put([sequence], vocab=VOCAB)
    entries = cache._answers.locate([wide.key, narrow.key, sequence.key])
    segments = cache._library._segments
    with pytest.raises(RecordError, match=r"\[3, 6\] values a row"):
        read_signals(segments, entries[:2], with_tokens=False)
    with pytest.raises(RecordError, match="cannot be read as signals"):
        read_signals(segments, entries[1:], with_tokens=False)
    with pytest.raises(RecordError, match="cannot be read as sequences"):
        cache._library.read_block(entries[1:], k=None)
    assert respond(ask([3, 4], SPANS)).width == 2
