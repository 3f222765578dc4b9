"""Signals in segments of many chunks, read in every order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from signal_builders import CLASSES, ENCODINGS, STATES, TAGS, ask, expected_values, respond, some_requests
from store_builders import TEACHER, open_cache, teacher_dir

from cache.disk.gather import Spans, offsets
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import DamagedObject, read_manifest
from cache.disk.packing import pack_signals
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.segments import Segment
from cache.disk.shards import ChunkCache
from cache.disk.signal_encoding import SignalEncoding
from cache.disk.signal_rows import gather_values, signal_facts
from cache.signals import SignalRecord


def sealed(root: Path, records: list[SignalRecord], *, encoding: SignalEncoding) -> Segment:
    open_cache(root)
    storage = LocalStorage(teacher_dir(root))
    staging = Staging(storage)
    terms = SegmentTerms(identity=TEACHER.digest(), vocab=0, provenance={}, licence=None)
    staging.publish(pack_signals(records, encoding=encoding), terms)
    staging.drop()
    manifest = read_manifest(storage, staging.name, identity=TEACHER.digest())
    return Segment(storage, manifest, chunks=ChunkCache(4000))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[SignalRecord]:
    monkeypatch.setattr("cache.disk.columns.CHUNK_ROWS", 7)
    return [respond(request) for request in some_requests(12)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_facts_and_values_of_any_rows_in_any_order(
    tmp_path: Path, records: list[SignalRecord], encoding: SignalEncoding
) -> None:
    segment = sealed(tmp_path, records, encoding=encoding)
    facts = signal_facts(segment)
    assert facts["rows"].tolist() == [len(record.values) for record in records]
    assert facts["tokens"].tolist() == [len(record.token_ids) for record in records]
    order = np.random.default_rng(1).permutation(len(records))[:40]
    starts = offsets(facts["rows"][order])
    spans = Spans(starts[:-1], facts["row_start"][order], facts["rows"][order])
    values = gather_values([segment], np.zeros(40, dtype=np.int64), spans, width=6)
    wanted = np.concatenate([expected_values(records[at], encoding=encoding) for at in order.tolist()])
    np.testing.assert_allclose(values, wanted, rtol=3e-7, atol=0 if encoding == "signal-f32" else 1e-6)


def test_rows_of_several_encodings_meet(tmp_path: Path, records: list[SignalRecord]) -> None:
    segments = [sealed(tmp_path / name, records, encoding=name) for name in ENCODINGS]
    owner = np.arange(30) % 3
    facts = signal_facts(segments[0])[:30]
    spans = Spans(offsets(facts["rows"])[:-1], facts["row_start"], facts["rows"])
    values = gather_values(segments, owner, spans, width=6)
    wanted = [expected_values(records[at], encoding=ENCODINGS[at % 3]) for at in range(30)]
    np.testing.assert_allclose(values, np.concatenate(wanted), rtol=3e-7, atol=1e-6)
    assert gather_values([], np.zeros(0, dtype=np.int64), spans.pick(slice(0, 0)), width=4).shape == (0, 4)


@pytest.mark.parametrize("what", ["no such signal", "rows that the tokens do not ask for"])
def test_a_signed_segment_that_says_what_no_writer_writes_is_damage(tmp_path: Path, what: str) -> None:
    good = respond(ask([3, 4, 5], TAGS))
    if what == "no such signal":
        # A state without a layer, which no signal can be.
        odd = dataclasses.replace(respond(ask([3, 4, 5], STATES[0])))
        object.__setattr__(odd, "signal", SimpleNamespace(name="state", layer=None, position="first"))
    else:
        odd = dataclasses.replace(good, signal=CLASSES)
    segment = sealed(tmp_path, [odd], encoding="signal-f32")
    with pytest.raises(
        DamagedObject, match="values of no signal" if what == "no such signal" else "another number of rows"
    ):
        signal_facts(segment)
