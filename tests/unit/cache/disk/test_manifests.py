"""Manifests: one line that says what a segment is, and that nobody changes unnoticed."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
from store_builders import OTHER_TEACHER, TEACHER, VOCAB, make_record, open_cache, teacher_dir

from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import ARRIVAL_STEP_NS, DamagedObject, Manifest, arrival_ns, parse_manifest, read_manifest
from configs.errors import CacheError

DIGEST = TEACHER.digest()


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    report = open_cache(tmp_path).put([make_record([3, 4, 5, 6], prompt_len=2)], vocab=VOCAB)
    assert report is not None
    return read_manifest(LocalStorage(teacher_dir(tmp_path)), report.uuid, identity=DIGEST)


def parsed(data: bytes, manifest: Manifest, *, identity: str = DIGEST) -> Manifest:
    return parse_manifest(data, uuid=manifest.uuid, identity=identity, place="here")


def test_it_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert (manifest.rows, manifest.scored_rows, manifest.tokens, manifest.k) == (1, 2, 4, 8)
    assert parsed(manifest.to_json(), manifest) == manifest
    assert b"\n" not in manifest.to_json().strip()


def test_no_byte_of_it_changes_unnoticed(manifest: Manifest) -> None:
    data = manifest.to_json()
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(CacheError) as caught:
            parsed(changed, manifest)
        assert "\n" not in str(caught.value)


def test_it_belongs_to_one_teacher_and_one_segment(manifest: Manifest) -> None:
    with pytest.raises(CacheError, match=rf"belongs to teacher {DIGEST}, not {OTHER_TEACHER.digest()}: move it back"):
        parsed(manifest.to_json(), manifest, identity=OTHER_TEACHER.digest())
    with pytest.raises(DamagedObject, match="numbers that no segment can have"):
        parse_manifest(manifest.to_json(), uuid="0" * 8 + "-0000" * 3 + "-" + "0" * 12, identity=DIGEST, place="here")


def test_another_format_names_itself_and_the_cure(manifest: Manifest) -> None:
    body = json.loads(manifest.to_json())["body"] | {"format": 9}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    outer = {"body": body, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    with pytest.raises(CacheError, match=r"written in format 9, this version reads formats 1 and 2: upgrade stillroom"):
        parsed(json.dumps(outer).encode(), manifest)


def test_who_arrives_is_never_older_than_who_was_there() -> None:
    assert arrival_ns(5 * ARRIVAL_STEP_NS, newest=0) == 5 * ARRIVAL_STEP_NS
    assert arrival_ns(5, newest=7) == 7 + ARRIVAL_STEP_NS


def test_damage_says_where_in_another_process_too() -> None:
    error = pickle.loads(pickle.dumps(DamagedObject("s", "n\x1b", "torn")))
    assert (error.segment, error.name, error.reason) == ("s", "n\x1b", "torn")
    assert str(error) == "segment s object n\\x1b: torn"
