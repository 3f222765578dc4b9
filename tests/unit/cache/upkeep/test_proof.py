"""What is signed is not yet right: every segment is decoded and named anew before an archive counts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_builders import assert_nothing_came, members, write
from golden_records import golden_records
from rewriting_builders import DIGEST, merge, names, put_each, requests_of, storage_of
from signal_builders import CLASSES, ENCODINGS, STATES, TAGS, ask, respond
from store_builders import TEACHER, VOCAB, answer, make_record, make_request, open_cache, teacher_dir

from cache.disk.columns import SegmentSize, zarr_objects
from cache.disk.key_objects import KeyTables
from cache.disk.manifests import DamagedObject, Manifest, ObjectInfo, parse_manifest, read_manifest
from cache.records import TeacherRecord
from cache.sampling import sample_rows
from cache.signals import SignalRecord
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.proof import prove_segment
from cache.upkeep.raw_columns import RawSegment
from cache.upkeep.rewriting import forget
from configs.errors import CacheError

PROMPTS = [5, 6, 7]


def proved(root: Path) -> int:
    """How many segments there are, all of which are what they say."""
    storage, found = storage_of(root), names(root, "segments")
    for uuid in found:
        prove_segment(storage, read_manifest(storage, uuid, identity=DIGEST), identity=DIGEST)
    return len(found)


def test_what_is_written_is_proved(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    for encoding, vocab, rows in golden_records():
        items: list[Any] = [record if request is None else (record, request) for record, request in rows]
        cache.put(items, vocab=vocab, encoding=encoding)
    for encoding in ENCODINGS:
        cache.signals.put(_signals(), encoding=encoding)
    cache.put([make_record([5, 6, 7], prompt_len=3), make_record([5, 6], prompt_len=1, k=0)], vocab=VOCAB)
    rollouts = [make_record([9, 8, at], prompt_len=1, finish="given", version=at) for at in range(3)]
    cache.put(rollouts, vocab=VOCAB, rollout="stage")
    whole = [make_record([2, 3, at], prompt_len=1, k=6, vocab=6) for at in range(4)]
    cache.put(
        [sample_rows(record, draws=at + 1, seed=7) for at, record in enumerate(whole)], vocab=6, encoding="sampled"
    )
    assert proved(tmp_path) == 8 + len(ENCODINGS)


@pytest.mark.parametrize(("encoding", "k"), [("topk-u8", 8), ("topk-f16", 8), ("full", VOCAB), ("topk-u8", 0)])
def test_what_is_merged_and_forgotten_is_proved(tmp_path: Path, encoding: str, k: int) -> None:
    records = put_each(tmp_path, [*PROMPTS, 8], encoding=encoding, k=k)
    merge(tmp_path)
    assert proved(tmp_path) == 5
    forget(storage_of(tmp_path), identity=DIGEST, keys=[records[1].key])
    assert proved(tmp_path) >= 1


class Forged:
    """The only segment of a cache, to be changed and signed again by somebody who knows the format."""

    def __init__(self, root: Path) -> None:
        self.place = teacher_dir(root)
        (self.uuid,) = names(root, "segments")
        self.manifest = read_manifest(storage_of(root), self.uuid, identity=DIGEST)
        raw = RawSegment(storage_of(root), self.manifest)
        self.columns = {name: raw.column(name).copy() for name in raw._layouts}
        tables = raw.tables()
        self.keys, self.entries = tables.keys.copy(), tables.entries.copy()
        self.generations = tables.generations.copy()

    def write(self) -> Manifest:
        size = SegmentSize.of(self.manifest)
        objects = zarr_objects(self.columns, size=size)
        for path, data in objects.items():
            (self.place / "segments" / self.uuid / path).write_bytes(data)
        keys = self.keys.tobytes() + self.entries.tobytes() + self.generations.tobytes()
        manifest = dataclasses.replace(
            self.manifest,
            keys=ObjectInfo.of(keys),
            objects={path: ObjectInfo.of(data) for path, data in objects.items()},
        )
        (self.place / "manifests" / f"{self.uuid}.keys").write_bytes(keys)
        (self.place / "manifests" / f"{self.uuid}.json").write_bytes(manifest.to_json())
        return manifest


Change = Callable[[Forged], None]


def _swap_keys(it: Forged) -> None:
    """The rows of two sequences change places, so that each is served under the other's key."""
    it.entries[[0, 1]] = it.entries[[1, 0]]


def _other_tokens(it: Forged) -> None:
    it.columns["token_ids"][3] += 1


def _key_of_nobody(it: Forged) -> None:
    it.keys[-1] = b"\xff" * 32


def _generation_elsewhere(it: Forged) -> None:
    it.generations["sequence"][0] = b"\x01" * 32


def _in_entries(name: str, value: int) -> Change:
    return lambda it: it.entries[name].__setitem__(0, value)


def _in_generations(name: str, value: int) -> Change:
    return lambda it: it.generations[name].__setitem__(0, value)


def _in_column(name: str, value: float) -> Change:
    return lambda it: it.columns[name].reshape(-1).__setitem__(0, value)


def _end_of(name: str) -> Change:
    return lambda it: it.columns[name].__setitem__(-1, it.columns[name][-1] + 1)


def _unordered(it: Forged) -> None:
    it.keys, it.entries = it.keys[::-1].copy(), it.entries[::-1].copy()


CHANGES: dict[str, Change] = {
    "rows change places": _swap_keys,
    "a token is another": _other_tokens,
    "a key is nobody's": _key_of_nobody,
    "keys are not in order": _unordered,
    "a row number lies outside": _in_entries("row", 2**31),
    "a row is named twice": lambda it: it.entries["row"].fill(0),
    "k lies outside": _in_entries("k", 4_000_000_000),
    "k is less": _in_entries("k", 3),
    "finish of an entry lies outside": _in_entries("finish", 200),
    "finish of an entry differs": _in_entries("finish", 2),
    "a sequence is longer": _in_entries("length", 9000),
    "a prompt is longer": _in_entries("prompt_len", 9000),
    "a prompt is empty": _in_entries("prompt_len", 0),
    "a prompt is another": _in_entries("prompt_len", 2),
    "a generation's finish lies outside": _in_generations("finish", 3),
    "a generation's length is another": _in_generations("response_len", 1),
    "a generation's length lies outside": _in_generations("response_len", 2**32 - 1),
    "a generation leads nowhere": _generation_elsewhere,
    "finish lies outside": _in_column("finish", 9),
    "origin lies outside": _in_column("origin", 9),
    "the version lies outside": _in_column("policy_version", -5),
    "k of a row lies outside": _in_column("k", -1),
    "the prompt of a row lies outside": _in_column("prompt_len", -1),
    "tokens are negative": _in_column("token_ids", -7),
    "tokens begin elsewhere": _in_column("token_offsets", 1),
    "tokens end elsewhere": _end_of("token_offsets"),
    "rows begin elsewhere": _in_column("row_offsets", -1),
    "rows end elsewhere": _end_of("row_offsets"),
    "an id is outside the vocabulary": _in_column("topk_ids", VOCAB),
    "an id is negative": _in_column("topk_ids", -1),
    "an id stands twice": lambda it: it.columns["topk_ids"].fill(4),
    "a step goes up": lambda it: it.columns["topk_dq"][:, 1:].fill(200),
    "a tail is no number": _in_column("tail_logmass", float("nan")),
    "a tail is positive": _in_column("tail_logmass", 0.5),
    "a tail is of another k": _in_column("tail_logmass", float("-inf")),
    "a target is positive": _in_column("target_logprob", 2.0),
    "a target is no number": _in_column("target_logprob", float("nan")),
    "a rank is none": _in_column("target_rank", 0),
}


def _asked(root: Path, records: list[TeacherRecord]) -> None:
    """Whatever is asked of such a cache, it is answered or refused in one line."""
    requests = requests_of(PROMPTS)
    keys = [record.key for record in records]
    cache = open_cache(root)
    found = cache.get_many(keys)
    assert all(record is None or record.key == key for record, key in zip(found, keys, strict=True))
    cache.missing(requests, k=8)
    cache.lookup(requests)
    cache.stats()
    for uuid in names(root, "manifests", suffix=".json"):
        storage_of(root).delete(f"quarantine/{uuid}.json")
    merge(root)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_segment_that_was_signed_anew_is_refused(tmp_path: Path, change: Change) -> None:
    root = tmp_path / "here"
    records = [record for record, _ in (answer(request) for request in _requests())]
    open_cache(root).put([answer(request) for request in _requests()], vocab=VOCAB)
    forged = Forged(root)
    change(forged)
    manifest = forged.write()
    assert open_cache(root).verify() == [], "every digest agrees"
    with pytest.raises(DamagedObject):
        prove_segment(storage_of(root), manifest, identity=DIGEST)
    export_archive(storage_of(root), tmp_path / "a.tar", identity=DIGEST)
    with pytest.raises(CacheError, match="not imported"):
        import_archive(tmp_path / "there", tmp_path / "a.tar")
    assert_nothing_came(tmp_path / "there")
    ((_, found),) = open_cache(root).verify_segments(lambda *what: prove_segment(*what, identity=DIGEST))
    assert [damage.segment for damage in found] == [forged.uuid]
    _asked(root, records)


def _requests() -> list[Any]:
    return [make_request([3, 4, prompt]) for prompt in PROMPTS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab", 4),
        ("vocab", 2**40),
        ("vocab", "50"),
        ("k", 9),
        ("k", True),
        ("k", -1),
        ("rows", 2),
        ("rows", 2**33),
        ("scored_rows", 3),
        ("tokens", 3),
        ("response_tokens", 3),
        ("generations", 0),
        ("encoding", "full"),
        ("encoding", ["topk-u8"]),
        ("chunk_rows", 2),
        ("created_ns", 2**70),
        ("created_ns", float("nan")),
        ("provenance", ["model"]),
        ("provenance", {"model": 3}),
        ("provenance", {"model": ["x"]}),
        ("provenance", None),
        ("licence", 7),
        ("rollout", ["stage"]),
        ("rollout", "stage"),
        ("identity", 7),
        ("objects", {}),
        ("objects", {"a": {"size": 1.5, "sha256": "x"}}),
        ("keys", {"size": 1, "sha256": None}),
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    root = tmp_path / "here"
    open_cache(root).put([answer(request) for request in _requests()], vocab=VOCAB)
    (uuid,) = names(root, "segments")
    manifest = read_manifest(storage_of(root), uuid, identity=DIGEST)
    export_archive(storage_of(root), tmp_path / "whole.tar", identity=DIGEST)
    written = json.loads(manifest.to_json())["body"] | {name: value}
    body = json.dumps(written, sort_keys=True, separators=(",", ":"))
    signed = f'{{"body":{body},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}'
    path = teacher_dir(root) / "manifests" / f"{uuid}.json"
    path.write_text(signed)
    changed = [
        (member, path.read_bytes() if member.name.endswith(f"{uuid}.json") else data)
        for member, data in members(tmp_path / "whole.tar")
    ]
    with pytest.raises(CacheError):
        import_archive(tmp_path / "there", write(tmp_path / "a.tar", changed))
    assert_nothing_came(tmp_path / "there")
    try:
        _asked(root, [answer(request)[0] for request in _requests()])
    except CacheError as error:
        assert name == "identity" and "belongs to teacher" in str(error)


CHANGES_OF_SIGNALS: dict[str, Change] = {
    "rows change places": _swap_keys,
    "a token is another": _other_tokens,
    "a key is nobody's": _key_of_nobody,
    "keys are not in order": _unordered,
    "a row is named twice": lambda it: it.entries["row"].fill(0),
    "the width of an entry is less": _in_entries("k", 3),
    "an entry has no values": _in_entries("k", 0),
    "finish of an entry differs": _in_entries("finish", 0),
    "a text is longer": _in_entries("length", 9000),
    "the split of an entry is another": _in_entries("prompt_len", 1),
    "finish lies outside": _in_column("finish", 9),
    "the width of a row is another": _in_column("k", 5),
    "the split of a row is another": _in_column("prompt_len", 1),
    "tokens are negative": _in_column("token_ids", -7),
    "rows end elsewhere": _end_of("row_offsets"),
    "rows are shared out otherwise": lambda it: it.columns["row_offsets"].__setitem__(1, 2),
    "another signal was asked": _in_column("signal", 1),
    "a signal that is none": _in_column("signal", 4),
    "a layer where there is none": _in_column("layer", 3),
    "a place where there is none": _in_column("place", 0),
    "a layer is another": lambda it: it.columns["layer"].__setitem__(-1, 7),
    "a place is another": lambda it: it.columns["place"].__setitem__(-1, 1),
    "a place lies outside": lambda it: it.columns["place"].__setitem__(-1, 254),
    "a minimum is no number": lambda it: it.columns["signal_minimum"].__setitem__(0, np.nan),
    "a step is endless": lambda it: it.columns["signal_step"].__setitem__(0, np.inf),
}


def _signals() -> list[SignalRecord]:
    requests = [ask([3, 4, 5, 6], signal, split=3) for signal in (CLASSES, TAGS)]
    return [respond(request) for request in (*requests, ask([7, 8, 9], STATES[0]), ask([7, 8, 9], STATES[2]))]


def _in_a_file(root: Path, path: Path) -> Path:
    export_archive(storage_of(root), path, identity=DIGEST)
    return path


@pytest.mark.parametrize("change", CHANGES_OF_SIGNALS.values(), ids=CHANGES_OF_SIGNALS.keys())
def test_a_segment_of_signals_that_was_signed_anew_is_refused(tmp_path: Path, change: Change) -> None:
    root, records = tmp_path / "here", _signals()
    open_cache(root).signals.put(records, encoding="signal-u8")
    forged = Forged(root)
    change(forged)
    manifest = forged.write()
    assert open_cache(root).verify() == [], "every digest agrees"
    with pytest.raises(DamagedObject):
        prove_segment(storage_of(root), manifest, identity=DIGEST)
    with pytest.raises(CacheError, match="not imported"):
        import_archive(tmp_path / "there", _in_a_file(root, tmp_path / "a.tar"))
    assert_nothing_came(tmp_path / "there")
    # Whatever is asked of such a cache, it is answered or counts as missing.
    cache, keys = open_cache(root), [record.key for record in records]
    found = cache.signals.get_many(keys)
    assert all(record is None or record.key == key for record, key in zip(found, keys, strict=True))
    cache.stats()
    merge(root)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab", 50),
        ("k", 5),
        ("k", 0),
        ("rows", 3),
        ("scored_rows", 3),
        ("scored_rows", 99),
        ("tokens", 13),
        ("response_tokens", 1),
        ("response_tokens", 99),
        ("generations", 1),
        ("encoding", "signal-f32"),
        ("encoding", "topk-u8"),
        ("encoding", "signal-u4"),
        ("encoding", None),
        ("chunk_rows", 2),
        ("rollout", "stage"),
    ],
)
def test_a_manifest_of_signals_that_says_what_cannot_be_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    root, records = tmp_path / "here", _signals()
    open_cache(root).signals.put(records, encoding="signal-u8")
    (uuid,) = names(root, "segments")
    manifest = read_manifest(storage_of(root), uuid, identity=DIGEST)
    assert prove_segment(storage_of(root), manifest, identity=DIGEST) is None
    changed = dataclasses.replace(manifest, **{name: value})
    (teacher_dir(root) / "manifests" / f"{uuid}.json").write_bytes(changed.to_json())
    with pytest.raises(CacheError):
        prove_segment(storage_of(root), read_manifest(storage_of(root), uuid, identity=DIGEST), identity=DIGEST)
    assert open_cache(root).signals.get_many([record.key for record in records]) == [None] * 4


def test_an_imported_answer_to_another_prompt_is_noticed_when_it_is_asked_for(tmp_path: Path) -> None:
    """A generation key is the hash of a request that no archive holds."""
    requests = _requests()
    open_cache(tmp_path / "here").put([answer(request) for request in requests], vocab=VOCAB)
    forged = Forged(tmp_path / "here")
    # Each answers the next one's request.
    forged.generations["sequence"] = np.roll(forged.generations["sequence"], 1)
    forged.write()
    export_archive(storage_of(tmp_path / "here"), tmp_path / "a.tar", identity=DIGEST)
    import_archive(tmp_path / "there", tmp_path / "a.tar")
    cache = open_cache(tmp_path / "there")
    assert cache.lookup(requests) == [None] * 3
    assert cache.missing(requests, k=8).generate == (0, 1, 2)
    assert len(names(tmp_path / "there", "quarantine")) == 1
    open_cache(tmp_path / "there").put([answer(request) for request in requests], vocab=VOCAB)
    assert open_cache(tmp_path / "there").lookup(requests) == [answer(request)[0].key for request in requests]


def test_imported_answers_to_their_own_prompts_are_given(tmp_path: Path) -> None:
    put_each(tmp_path / "here", PROMPTS)
    export_archive(storage_of(tmp_path / "here"), tmp_path / "a.tar", identity=DIGEST)
    import_archive(tmp_path / "there", tmp_path / "a.tar")
    requests = requests_of(PROMPTS)
    for root in (tmp_path / "here", tmp_path / "there"):
        assert open_cache(root).lookup(requests) == open_cache(tmp_path / "here").lookup(requests) != [None] * 3
    (uuid, *_) = names(tmp_path / "there", "segments")
    manifest = read_manifest(storage_of(tmp_path / "there"), uuid, identity=DIGEST)
    assert manifest.imported
    assert parse_manifest(manifest.to_json(), uuid=uuid, identity=TEACHER.digest(), place="") == manifest
    assert len(KeyTables(storage_of(tmp_path / "there").read(f"manifests/{uuid}.keys"), manifest).keys) == 1
