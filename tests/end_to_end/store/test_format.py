"""The format on disk: a golden cache that must stay readable for ever, by the product and by an independent reader.

No golden file is ever changed; a new format version has files of its own beside the old ones:
`STILLROOM_WRITE_GOLDEN=1 python -m pytest tests/end_to_end/store/test_format.py` writes those that are not there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from golden_files import pack_golden
from golden_records import REQUESTS, golden_records
from independent_reader import Row, read_cache
from store_builders import TEACHER, VOCAB, open_cache

from cache.disk import ranked_ids
from cache.disk.manifests import FORMAT, RANKED_FORMAT
from cache.keys import generation_key
from cache.records import TeacherRecord
from cache.store import TeacherCache

GOLDEN = Path(__file__).with_name("golden")
FORMATS = (FORMAT, RANKED_FORMAT)
ARRAYS = ("topk_ids", "topk_logprobs", "target_logprobs", "target_ranks", "tail_logmass", "counts")


def write_golden(root: Path, *, number: int) -> None:
    """Make the golden files of a format."""
    cache = open_cache(root)
    with written_as(number):
        for encoding, vocab, rows in golden_records():
            items: list[Any] = [record if request is None else (record, request) for record, request in rows]
            cache.put(items, vocab=vocab, encoding=encoding, provenance={"model": "golden"}, licence="cc0-1.0")
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"cache-format-{number}.tar.gz").write_bytes(pack_golden(root))
    (GOLDEN / f"cache-format-{number}.json").write_text(json.dumps(expected(cache), indent=1) + "\n")


@contextmanager
def written_as(number: int) -> Iterator[None]:
    """Have segments written in this format, small as they are."""
    least = 0 if number == RANKED_FORMAT else 2**62
    with patch.multiple(ranked_ids, LEAST_ENTRIES=least, LEAST_USES=least):
        yield


def expected(cache: TeacherCache) -> list[dict[str, Any]]:
    """What a reader must find, in plain values."""
    found = []
    for _, _, rows in golden_records():
        keys = [record.key for record, _ in rows]
        for stored, (_, request) in zip(cache.get_many(keys), rows, strict=True):
            assert stored is not None
            key = None if request is None else generation_key(TEACHER.digest(), request).hex()
            found.append({"generation": key, **plain(stored)})
    return found


def plain(record: TeacherRecord) -> dict[str, Any]:
    """A record as JSON holds it."""
    fields = {name: getattr(record, name) for name in ("prompt_len", "finish", "origin", "policy_version", "k")}
    arrays = {name: array(getattr(record, name)) for name in ARRAYS}
    return {"key": record.key.hex(), "token_ids": record.token_ids.tolist(), **fields, **arrays}


def array(values: np.ndarray | None) -> list[Any] | None:
    return None if values is None else np.where(np.isneginf(values), -1e30, values).round(6).tolist()


@pytest.fixture(scope="module", params=FORMATS)
def golden(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    number = request.param
    if os.environ.get("STILLROOM_WRITE_GOLDEN") and not (GOLDEN / f"cache-format-{number}.tar.gz").exists():
        write_golden(tmp_path_factory.mktemp("new"), number=number)
    root = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / f"cache-format-{number}.tar.gz") as archive:
        archive.extractall(root, filter="data")
    manifests = [json.loads(path.read_text())["body"] for path in root.glob("*/manifests/*.json")]
    assert number in {manifest["format"] for manifest in manifests}
    return root, json.loads((GOLDEN / f"cache-format-{number}.json").read_text())


def assert_like(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if name in ARRAYS and value is not None:
            np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5, err_msg=name)
        elif name != "generation":
            assert found[name] == value, name


def test_the_golden_cache_is_read(golden: tuple[Path, list[dict[str, Any]]]) -> None:
    root, expectations = golden
    cache = TeacherCache.open(root, TEACHER)
    assert cache.verify() == []
    keys = [bytes.fromhex(wanted["key"]) for wanted in expectations]
    for found, wanted in zip(cache.get_many(keys), expectations, strict=True):
        assert found is not None
        assert_like(plain(found), wanted)
    assert cache.missing(REQUESTS, k=8).generate == ()
    assert cache.stats().records == len(expectations)


def test_an_independent_reader_finds_the_same(golden: tuple[Path, list[dict[str, Any]]]) -> None:
    root, expectations = golden
    rows, generations = read_cache(root / TEACHER.digest())
    assert len(rows) == len(expectations)
    for wanted in expectations:
        (row,) = rows[bytes.fromhex(wanted["key"])]
        assert_like({**_plain_row(row), "key": wanted["key"]}, wanted)
        if wanted["generation"] is not None:
            ((_, sequence, response_len, finish),) = generations[bytes.fromhex(wanted["generation"])]
            assert sequence.hex() == wanted["key"]
            assert (response_len, finish) == (len(wanted["token_ids"]) - wanted["prompt_len"], wanted["finish"])


@pytest.mark.parametrize("number", FORMATS)
def test_what_is_written_today_has_the_golden_shape(tmp_path: Path, number: int) -> None:
    # Names, sizes and codecs of every object, times and names of segments aside.
    with tarfile.open(GOLDEN / f"cache-format-{number}.tar.gz") as archive:
        archive.extractall(tmp_path / "golden", filter="data")
    write = [record for record, _ in golden_records()[0][2]]
    with written_as(number):
        open_cache(tmp_path).put(write, vocab=VOCAB)
    (new,) = (tmp_path / TEACHER.digest() / "segments").iterdir()
    olds = {path.name: path for path in (tmp_path / "golden" / TEACHER.digest() / "segments").iterdir()}
    metadata = {path.relative_to(new).as_posix(): path.read_bytes() for path in new.rglob("zarr.json")}
    assert any(
        metadata == {path.relative_to(old).as_posix(): path.read_bytes() for path in old.rglob("zarr.json")}
        for old in olds.values()
    )


def _plain_row(row: Row) -> dict[str, Any]:
    fields = dataclasses.asdict(row)
    arrays = {name: array(row.arrays.get(name)) for name in ARRAYS}
    if row.k and "counts" in row.arrays:
        arrays |= {name: array(row.arrays[name][:, : row.k]) for name in ("topk_ids", "counts")}
    return fields | arrays
