"""The key object: what is packed is found again, wherever it lies, and a flipped bit leads nowhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_builders import TEACHER, VOCAB, answer, make_request, open_cache, teacher_dir

from cache.disk.key_objects import KeyObject, KeyTables, key_array, key_bytes, key_prefixes, one_of_each
from cache.disk.local_storage import LocalStorage
from cache.disk.manifests import DamagedObject, Manifest, read_manifest
from cache.keys import KEY_BYTES

KEYS = [bytes([first]) + bytes(KEY_BYTES - 1) for first in (200, 3, 3)] + [b"\1" * KEY_BYTES]


def test_keys_keep_their_zeros_and_their_order() -> None:
    found = key_array(KEYS)
    assert key_bytes(found) == KEYS
    assert key_bytes(np.sort(found)) == sorted(KEYS)
    assert key_prefixes(found).tolist() == [int.from_bytes(key[:8], "big") for key in KEYS]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=30))
def test_of_equal_keys_the_first_with_the_highest_limit_is_kept(drawn: list[tuple[int, int, int]]) -> None:
    """Also where keys only begin alike, and where they end with zeros."""
    keys = [bytes([head]) * 8 + bytes([tail]) * (KEY_BYTES - 8) for head, tail, _ in drawn]
    limits = [limit for *_, limit in drawn]
    best: dict[bytes, int] = {}
    for at, key in enumerate(keys):
        if key not in best or limits[best[key]] < limits[at]:
            best[key] = at
    found = one_of_each(key_array(keys), limits=np.array(limits, dtype=np.int64))
    assert found.tolist() == sorted(best.values())


@pytest.fixture
def written(tmp_path: Path) -> tuple[LocalStorage, Manifest, bytes]:
    """A segment of forty answers: its storage, its manifest and its key object."""
    report = open_cache(tmp_path).put([answer(make_request([3, 4, number])) for number in range(5, 45)], vocab=VOCAB)
    assert report is not None
    storage = LocalStorage(teacher_dir(tmp_path))
    manifest = read_manifest(storage, report.uuid, identity=TEACHER.digest())
    return storage, manifest, storage.read(f"manifests/{report.uuid}.keys")


def test_what_is_read_at_single_places_is_what_the_whole_says(
    written: tuple[LocalStorage, Manifest, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, manifest, data = written
    whole = KeyTables(data, manifest)
    assert len(whole.keys) == len(whole.generations) == manifest.rows == 40
    # Blocks so short that an item reaches into the next.
    monkeypatch.setattr("cache.disk.key_objects.BLOCK_BYTES", 100)
    found, places = KeyObject(storage, manifest, data), np.array([39, 0, 7, 7])
    keys, entries = found.sequences(places)
    assert keys.tolist() == whole.keys[places].tolist()
    assert entries.tolist() == whole.entries[places].tolist()
    assert found.generations(places).tolist() == whole.generations[places].tolist()
    assert whole.prefixes().sequences.tolist() == sorted(key_prefixes(whole.keys).tolist())


def test_a_bit_that_flips_after_the_opening_is_damage(written: tuple[LocalStorage, Manifest, bytes]) -> None:
    storage, manifest, data = written
    found = KeyObject(storage, manifest, data)
    (storage.root / "manifests" / f"{manifest.uuid}.keys").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedObject):
        found.generations(np.array([39]))


def test_tables_that_contradict_their_manifest_are_refused(written: tuple[LocalStorage, Manifest, bytes]) -> None:
    _, manifest, data = written
    with pytest.raises(DamagedObject, match=r"bytes do not hold 40 \+ 40 entries"):
        KeyTables(data[:-1], manifest)
    for change, reason in (({"tokens": manifest.tokens + 1}, "its tokens"), ({"k": 3}, "its k is not")):
        with pytest.raises(DamagedObject, match=reason):
            KeyTables(data, dataclasses.replace(manifest, **change))
    swapped = data[KEY_BYTES : 2 * KEY_BYTES] + data[:KEY_BYTES] + data[2 * KEY_BYTES :]
    with pytest.raises(DamagedObject, match="its keys are not in order"):
        KeyTables(swapped, manifest)
