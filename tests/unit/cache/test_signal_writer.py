from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from signal_builders import CLASSES, STATES, TAGS, ask, assert_same_signal, respond
from store_builders import OTHER_TEACHER, open_cache

from cache.signal_writer import VALUES_PER_ROW
from configs.errors import RecordError


def test_a_broken_signal_is_refused_and_the_others_are_kept(tmp_path: Path) -> None:
    cache, good = open_cache(tmp_path), respond(ask([3, 4, 5], TAGS))
    with cache.signals.writer(encoding="signal-f16") as writer:
        writer.add(good)
        refusals = {
            "not finite": dataclasses.replace(good, values=np.full((3, 6), np.nan, dtype=np.float32)),
            "its key": dataclasses.replace(good, key=bytes(32)),
            "is not that of its": respond(ask([3, 4, 5], TAGS), identity=OTHER_TEACHER),
            "1 rows where tag_logits has 3": dataclasses.replace(good, values=good.values[:1]),
            "outside 1..3": dataclasses.replace(good, split=4),
            "commit first": respond(ask([3, 4, 5], CLASSES), width=7),
            "does not fit encoding=signal-f16": respond(ask([3, 4, 5], CLASSES), scale=1e6),
        }
        for words, broken in refusals.items():
            with pytest.raises(RecordError, match=words):
                writer.add(broken)
    assert cache.stats().signals == 1
    assert_same_signal(open_cache(tmp_path).signals.get_many([good.key])[0], good, encoding="signal-f16")


def test_what_is_pending_is_kept_as_it_came_first(tmp_path: Path) -> None:
    cache, first = open_cache(tmp_path), respond(ask([3, 4, 5]))
    with cache.signals.writer() as writer:
        writer.add(first)
        writer.add(dataclasses.replace(first, values=first.values + 1))
        assert (writer.pending_rows, writer.pending_tokens) == (1, 3)
    assert_same_signal(cache.signals.get_many([first.key])[0], first)


def test_wide_rows_fill_a_segment_sooner(tmp_path: Path) -> None:
    with open_cache(tmp_path).signals.writer() as writer:
        writer.add(respond(ask([3, 4, 5], TAGS), width=VALUES_PER_ROW))
        assert writer.due(3600.0, max_rows=3) and not writer.due(3600.0, max_rows=4)
        writer.commit()
        writer.add(respond(ask([3, 4, 5], STATES[0]), width=2 * VALUES_PER_ROW + 1))
        assert writer.due(3600.0, max_rows=3) and not writer.due(3600.0, max_rows=4)
        writer.commit()
        assert not writer.due(0.0)


def test_after_a_commit_another_width_may_follow(tmp_path: Path) -> None:
    records = [respond(ask([3, 4, 5], CLASSES), width=4), respond(ask([3, 4, 5], STATES[0]), width=9)]
    with open_cache(tmp_path).signals.writer() as writer:
        for record in records:
            writer.add(record)
            writer.commit()
    cache = open_cache(tmp_path)
    for found, record in zip(cache.signals.get_many([r.key for r in records]), records, strict=True):
        assert_same_signal(found, record)
