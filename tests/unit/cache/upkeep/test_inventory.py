from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rewriting_builders import DIGEST, names, put_answer, put_each, scored_again, storage_of
from signal_builders import CLASSES, SPANS, STATES, TAGS, ask, respond, some_requests
from store_builders import TEACHER, VOCAB, flip_bit, make_record, make_request, open_cache, teacher_dir

from cache.disk.manifests import read_manifest
from cache.failures import Failures
from cache.identity import RemoteTeacherIdentity
from cache.records import TeacherRecord
from cache.sampling import sample_rows
from cache.store import TeacherCache
from cache.upkeep.inventory import teacher_inventory
from cache.upkeep.rewriting import compact
from configs.errors import CacheError


def mean_tail(records: list[TeacherRecord]) -> float:
    tails = [record.tail_logmass for record in records if record.tail_logmass is not None]
    return float(np.exp(np.concatenate(tails).astype(np.float64)).mean())


def test_everything_is_counted(tmp_path: Path) -> None:
    scored = put_each(tmp_path, [5, 6, 7])
    put_answer(tmp_path, 8, k=0, licence="cc", provenance={"engine": "x"})
    whole = put_answer(tmp_path, 9, k=VOCAB, provenance={"engine": "y"})
    draws = sample_rows(whole, draws=4, seed=0)
    open_cache(tmp_path).put([draws], vocab=VOCAB, encoding="sampled")
    told: list[tuple[int, int]] = []
    found = teacher_inventory(storage_of(tmp_path), DIGEST, progress=lambda *at: told.append(at))
    assert told[-1] == (6, 6)
    assert (found.identity, found.verifiable) == (DIGEST, True)
    assert (found.records, found.rows, found.segments, found.generations) == (6, 6, 6, 5)
    assert (found.tokens, found.response_tokens, found.scored_rows) == (48, 30, 25)
    assert found.encodings == {"topk-u8": 3, "text": 1, "full": 1, "sampled": 1}
    assert found.vocab == (VOCAB,)
    assert found.k == tuple(sorted({8, VOCAB, draws.k}))
    assert found.licences == (None, "cc")
    assert found.provenances == ({}, {"engine": "x"}, {"engine": "y"})
    assert found.mean_tail_mass == pytest.approx(mean_tail([*scored, whole]))
    files = [path for path in teacher_dir(tmp_path).rglob("*") if path.is_file()]
    assert found.bytes == sum(path.stat().st_size for path in files)
    identity = (teacher_dir(tmp_path) / "identity.json").stat().st_size
    assert found.referenced_bytes == found.bytes - identity
    assert found.bytes_per_token == found.referenced_bytes / 30
    assert (found.quarantined, found.tombstoned, found.staging, found.datasets) == (0, 0, 0, ())
    assert json.loads(json.dumps(dataclasses.asdict(found)))["records"] == 6


def test_rollouts_are_counted_by_the_stage_that_wrote_them(tmp_path: Path) -> None:
    put_each(tmp_path, [5])
    assert teacher_inventory(storage_of(tmp_path), DIGEST).rollouts == {}
    sizes = dict[str, int]()
    for prompt, stage in ((6, "a"), (7, "b"), (8, "b")):
        before = sum(storage_of(tmp_path).sizes("").values())
        record = make_record([3, 4, prompt, 9], prompt_len=3, finish="given", version=1)
        open_cache(tmp_path).put([record], vocab=VOCAB, rollout=stage)
        sizes[stage] = sizes.get(stage, 0) + sum(storage_of(tmp_path).sizes("").values()) - before
    found = teacher_inventory(storage_of(tmp_path), DIGEST, with_tail=False)
    assert found.rollouts == sizes
    assert (found.rows, found.generations) == (4, 1)


def test_signals_are_counted_by_themselves(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6])
    before = teacher_inventory(storage_of(tmp_path), DIGEST)
    assert (before.signals.rows, before.signals.bytes_per_row, before.signals.names) == (0, 0.0, {})
    cache = open_cache(tmp_path)
    signals = [respond(request) for request in some_requests(3, signals=(CLASSES, TAGS, *STATES))]
    report = cache.signals.put(signals, encoding="signal-u8")
    cache.signals.put([respond(ask([3, 4], SPANS))])
    cache.signals.view([signal.key for signal in signals], dataset="train")
    found = teacher_inventory(storage_of(tmp_path), DIGEST)
    counted = dataclasses.asdict(found) | {"signals": before.signals, "datasets": ()}
    same = (
        "records",
        "rows",
        "tokens",
        "response_tokens",
        "bytes_per_token",
        "encodings",
        "k",
        "vocab",
        "mean_tail_mass",
    )
    assert {name: counted[name] for name in same} == {name: getattr(before, name) for name in same}
    assert (found.segments, found.records) == (4, len(records))
    assert found.signals.records == found.signals.rows == 19
    assert found.signals.names == {"state": 12, "class_logits": 3, "tag_logits": 3, "span_logits": 1}
    assert (found.signals.encodings, found.signals.widths) == ({"signal-u8": 18, "signal-f32": 1}, (2, 6))
    assert found.signals.bytes == found.referenced_bytes - before.referenced_bytes
    assert found.signals.bytes_per_row == found.signals.bytes / 19
    assert report is not None
    manifest = read_manifest(storage_of(tmp_path), report.uuid, identity=DIGEST)
    ((name, (largest, rms)),) = found.signals.errors.items()
    assert (name, f"{largest:.6g}") == ("signal-u8", manifest.provenance["error_largest"])
    assert 0 < rms < largest < 0.05
    (item,) = found.datasets
    assert (item.rows, item.k, item.sound, item.mean_tail_mass) == (18, 6, True, None)
    quick = teacher_inventory(storage_of(tmp_path), DIGEST, with_tail=False)
    assert (quick.signals.names, quick.signals.rows) == ({}, 19)
    # A signal that stands twice is one; damage is left out.
    cache.signals.put(signals[:1])
    assert teacher_inventory(storage_of(tmp_path), DIGEST, with_tail=False).signals.records == 19
    flip_bit(next((teacher_dir(tmp_path) / "segments" / report.uuid / "signal" / "c").rglob("0")))
    assert teacher_inventory(storage_of(tmp_path), DIGEST).signals.names == {"span_logits": 1, "class_logits": 1}


def test_text_beside_scored_rows_counts_as_text(tmp_path: Path) -> None:
    records = [make_record([3, 4, 5], prompt_len=2), make_record([3, 4, 6], prompt_len=2, k=0)]
    open_cache(tmp_path).put(records, vocab=VOCAB)
    assert teacher_inventory(storage_of(tmp_path), DIGEST).encodings == {"topk-u8": 1, "text": 1}


def test_a_dataset_is_counted_by_exactly_its_rows(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6, 7])
    keys = [record.key for record in records]
    cache = open_cache(tmp_path)
    cache.view(keys[:2], dataset="train", k=8)
    cache.view(keys[2:], dataset="dev", k=4)
    text = cache.view(keys, dataset="text", k=0)
    expected = {"train": (2, 16, 10, 8), "dev": (1, 8, 5, 4), "text": (3, 24, 15, 0)}
    means = {"train": mean_tail(records[:2]), "dev": mean_tail(records[2:]), "text": mean_tail(records)}
    for _ in range(2):
        found = {item.dataset: item for item in teacher_inventory(storage_of(tmp_path), DIGEST).datasets}
        for name, counts in expected.items():
            item = found[name]
            assert (item.rows, item.tokens, item.response_tokens, item.k) == counts
            assert item.mean_tail_mass == pytest.approx(means[name])
            assert item.sound
        assert found["text"].view == text.digest
        # Wherever the rows stand.
        compact(storage_of(tmp_path), identity=DIGEST)
    assert teacher_inventory(storage_of(tmp_path), DIGEST).tombstoned == 3
    quick = teacher_inventory(storage_of(tmp_path), DIGEST, with_tail=False)
    assert quick.mean_tail_mass is None
    assert [item.mean_tail_mass for item in quick.datasets] == [None] * 3


def test_a_dataset_that_lost_rows_is_marked(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6])
    view = open_cache(tmp_path).view([record.key for record in records], dataset="train", k=8)
    storage_of(tmp_path).create(f"quarantine/{view.segments[0]}.json", b"{}")
    found = teacher_inventory(storage_of(tmp_path), DIGEST)
    assert (found.quarantined, found.records) == (1, 1)
    (item,) = found.datasets
    assert (item.sound, item.mean_tail_mass, item.rows) == (False, None, 2)
    (teacher_dir(tmp_path) / "pins" / f"{view.digest}.json").write_text("x")
    found = teacher_inventory(storage_of(tmp_path), DIGEST)
    assert (found.unreadable_pins, found.datasets) == (1, ())


def test_what_could_not_be_answered_is_counted_by_the_engine_that_could_not(tmp_path: Path) -> None:
    put_each(tmp_path, [5])
    storage = storage_of(tmp_path)
    assert teacher_inventory(storage, DIGEST).failures == {}
    for version in ("1", "2", "2"):
        Failures(storage, identity=DIGEST, engine={"vllm": version}).add({make_request([3]): "too long"})
    assert teacher_inventory(storage, DIGEST).failures == {"vllm=1": 1, "vllm=2": 1}


def test_rows_that_stand_twice_are_one_record(tmp_path: Path) -> None:
    (record,) = put_each(tmp_path, [5])
    open_cache(tmp_path).put([scored_again(record, k=4)], vocab=VOCAB)
    found = teacher_inventory(storage_of(tmp_path), DIGEST)
    assert (found.records, found.rows, found.k) == (1, 2, (4, 8))


def test_damage_is_left_out(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6])
    hurt = names(tmp_path, "segments")[0]
    flip_bit(next((teacher_dir(tmp_path) / "segments" / hurt / "tail_logmass" / "c").rglob("0")))
    found = teacher_inventory(storage_of(tmp_path), DIGEST)
    assert found.mean_tail_mass in [pytest.approx(mean_tail([record])) for record in records]


def test_an_empty_cache_and_one_behind_an_api(tmp_path: Path) -> None:
    teacher = RemoteTeacherIdentity(provider="p", model="m", revision="1")
    cache = TeacherCache.open(tmp_path, teacher)
    found = teacher_inventory(cache._library.storage, teacher.digest())
    assert (found.verifiable, found.records, found.bytes_per_token, found.mean_tail_mass) == (False, 0, 0.0, None)


def test_a_place_of_nobody_is_an_error(tmp_path: Path) -> None:
    put_each(tmp_path, [5])
    (teacher_dir(tmp_path) / "identity.json").unlink()
    with pytest.raises(CacheError, match=r"identity\.json"):
        teacher_inventory(storage_of(tmp_path), TEACHER.digest())
