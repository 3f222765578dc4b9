"""Damage to every array of a segment of signals: no wrong value reaches anybody, and a refill heals it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from signal_builders import CLASSES, STATES, TAGS, ask, assert_same_signal, respond
from store_builders import TEACHER, VOCAB, answer, assert_same_text, damage, flip_bit, make_request, teacher_dir

from cache.disk.columns import SegmentSize, layouts
from cache.disk.signal_encoding import SignalEncoding
from cache.signals import SignalRecord
from cache.store import TeacherCache
from configs.errors import CacheError

REQUESTS = [ask([3, text, 5], signal) for text in range(10, 14) for signal in (CLASSES, TAGS, STATES[0])]
KEPT, LOST = REQUESTS[:6], REQUESTS[6:]
SEQUENCE, PROMPT = answer(make_request([3, 4, 5]))
REPEATED = ("finish", "prompt_len", "k")
"""Read from the key object, where they stand too; damage to these arrays harms nobody and is left to `verify`."""

HOWS = ("0.0", "0.5", "0.99", "cut", "emptied", "deleted")


def arrays(encoding: SignalEncoding) -> list[str]:
    return sorted(layouts(SegmentSize(rows=1, scored_rows=1, tokens=1, k=1, chunk_rows=1, encoding=encoding)))


CASES = [("signal-u8", name) for name in arrays("signal-u8")]
CASES += [("signal-f32", "signal_f32"), ("signal-f16", "signal_f16")]


def object_path(root: Path, uuid: str, name: str) -> Path:
    found = (teacher_dir(root) / "segments" / uuid / name / "c").rglob("*")
    (path,) = (place for place in found if place.is_file())
    return path


def open_small(root: Path) -> TeacherCache:
    return TeacherCache.open(root, TEACHER, cache_bytes=1)


def fill(root: Path, *, encoding: str) -> tuple[str, list[SignalRecord]]:
    """A segment to be kept and one to be hurt, beside a sequence."""
    cache, records = open_small(root), [respond(request) for request in REQUESTS]
    cache.put([(SEQUENCE, PROMPT)], vocab=VOCAB)
    cache.signals.put(records[: len(KEPT)], encoding=encoding)
    report = cache.signals.put(records[len(KEPT) :], encoding=encoding)
    assert report is not None
    return report.uuid, records


def there(cache: TeacherCache, records: list[SignalRecord], *, encoding: str) -> list[int]:
    """Everything that is answered is right, and what is not counts as missing. The answer is what is there."""
    found = cache.signals.get_many([record.key for record in records])
    for record, original in zip(found, records, strict=True):
        if record is not None:
            assert_same_signal(record, original, encoding=encoding)
    held = [at for at, record in enumerate(found) if record is not None]
    assert set(cache.signals.missing(REQUESTS)) == set(range(len(REQUESTS))) - set(held)
    assert_same_text(cache.get_many([SEQUENCE.key])[0], SEQUENCE)
    return held


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("encoding", "name"), CASES)
def test_damage_is_noticed_by_every_reader_and_heals(tmp_path: Path, encoding: str, name: str, how: str) -> None:
    hurt, records = fill(tmp_path, encoding=encoding)
    warm, idle = open_small(tmp_path), open_small(tmp_path)
    view = warm.signals.view([record.key for record in records], dataset="train")
    assert there(warm, records, encoding=encoding) == list(range(len(REQUESTS)))
    damage(object_path(tmp_path, hurt, name), how)
    verified = open_small(tmp_path).verify()
    assert [(found.segment, found.name.partition("/")[0]) for found in verified] == [(hurt, name)]
    kept = list(range(len(KEPT)))
    flipped = how.startswith("0.")
    for reader in (open_small(tmp_path), idle, warm):
        held = there(reader, records, encoding=encoding)
        assert held in (kept, list(range(len(REQUESTS))))
        assert held == kept or name in REPEATED or reader is warm
        assert held == list(range(len(REQUESTS))) or name not in REPEATED or not flipped
        try:
            (block,) = reader.signals.iter_batches(view, [np.arange(len(view))], with_tokens=True)
        except CacheError as error:
            assert "view train lost rows" in str(error)
            continue
        for found, original in zip(block.records(), records, strict=True):
            assert_same_signal(found, original, encoding=encoding)
    marked = {marker.stem for marker in (teacher_dir(tmp_path) / "quarantine").iterdir()}
    assert marked <= {hurt}
    fresh = open_small(tmp_path)
    fresh.signals.put([records[at] for at in fresh.signals.missing(REQUESTS)], encoding=encoding)
    for reader in (warm, idle, open_small(tmp_path)):
        reader.refresh()
        assert there(reader, records, encoding=encoding) == list(range(len(REQUESTS)))


@pytest.mark.parametrize("how", ["0.0", "0.2", "0.5", "0.9", "cut", "emptied", "deleted"])
@pytest.mark.parametrize("suffix", ["json", "keys"])
def test_a_damaged_manifest_or_key_object_loses_its_signals_alone(tmp_path: Path, suffix: str, how: str) -> None:
    hurt, records = fill(tmp_path, encoding="signal-f32")
    damage(teacher_dir(tmp_path) / "manifests" / f"{hurt}.{suffix}", how)
    cache = open_small(tmp_path)
    assert there(cache, records, encoding="signal-f32") == list(range(len(KEPT)))
    gone = suffix == "json" and how == "deleted"
    assert [found.segment for found in cache.verify()] == ([] if gone else [hurt])


def test_a_view_that_lost_signals_says_so(tmp_path: Path) -> None:
    hurt, records = fill(tmp_path, encoding="signal-f16")
    cache = open_small(tmp_path)
    view = cache.signals.view([record.key for record in records], dataset="train")
    flip_bit(object_path(tmp_path, hurt, "signal_f16"))
    with pytest.raises(CacheError, match=r"view train lost rows.*run the fill again"):
        list(cache.signals.iter_batches(view, [np.arange(len(view))]))
    with pytest.raises(CacheError, match="lost rows"):
        open_small(tmp_path).signals.iter_batches(view, [np.arange(4)])
