"""Signals on disk: a golden cache that must stay readable for ever, by the product and by an independent reader.

`STILLROOM_WRITE_GOLDEN=1 python -m pytest tests/end_to_end/store/test_signal_format.py` writes the files of the present
format; what was written for an older one stays beside them.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import pack_golden
from independent_reader import read_signals
from signal_builders import CLASSES, ENCODINGS, SPANS, STATES, TAGS, ask, respond
from store_builders import TEACHER, open_cache

from cache.disk.manifests import FORMAT
from cache.signals import SignalRecord
from cache.store import TeacherCache

GOLDEN = Path(__file__).with_name("golden")
NAME = f"signals-format-{FORMAT}"

Expectations = list[dict[str, Any]]


def golden_signals() -> list[tuple[str, list[SignalRecord]]]:
    """(encoding, signals) of each segment: all kinds of signals, one text and a pair, in every encoding."""
    text, pair = [101, 7, 8, 9, 102], [101, 7, 102, 8, 9, 102]
    found = []
    for at, encoding in enumerate(ENCODINGS):
        tokens = [*text, 1000 + at]
        wide = [ask(tokens, signal) for signal in (CLASSES, TAGS, *STATES)] + [ask([*pair, 1000 + at], split=3)]
        found.append((encoding, [respond(request, width=5) for request in wide]))
        found.append((encoding, [respond(ask(tokens, SPANS)), respond(ask([*pair, 1000 + at], SPANS, split=3))]))
    return found


def write_golden(root: Path) -> None:
    """Make the golden files."""
    cache = open_cache(root)
    for encoding, records in golden_signals():
        cache.signals.put(records, encoding=encoding, provenance={"model": "golden"}, licence="cc0-1.0")
    keys = [record.key for _, records in golden_signals() for record in records]
    found = [plain(record) for record in cache.signals.get_many(keys) if record is not None]
    (GOLDEN / f"{NAME}.tar.gz").write_bytes(pack_golden(root))
    (GOLDEN / f"{NAME}.json").write_text(json.dumps(found, indent=1) + "\n")


def plain(record: SignalRecord) -> dict[str, Any]:
    """A signal as JSON holds it; a float32 comes back from its digits bit for bit."""
    signal = record.signal
    return {
        "key": record.key.hex(),
        "token_ids": record.token_ids.tolist(),
        "split": record.split,
        "signal": signal.name,
        "layer": signal.layer,
        "position": signal.position,
        "values": record.values.astype(np.float64).tolist(),
    }


@pytest.fixture(scope="module", params=sorted(path.stem for path in GOLDEN.glob("signals-*.json")) or [NAME])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Expectations]:
    if os.environ.get("STILLROOM_WRITE_GOLDEN"):
        write_golden(tmp_path_factory.mktemp("new"))
    root = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / f"{request.param}.tar.gz") as archive:
        archive.extractall(root, filter="data")
    return root, json.loads((GOLDEN / f"{request.param}.json").read_text())


def test_the_golden_signals_are_read_bit_for_bit(golden: tuple[Path, Expectations]) -> None:
    root, expectations = golden
    cache = TeacherCache.open(root, TEACHER)
    assert cache.verify() == []
    keys = [bytes.fromhex(wanted["key"]) for wanted in expectations]
    assert [plain(record) for record in cache.signals.get_many(keys) if record is not None] == expectations
    assert set(ENCODINGS) == {manifest.encoding for manifest in cache._library.manifests}
    stats = cache.stats()
    assert (stats.signals, stats.records) == (len(expectations), 0)


def test_an_independent_reader_finds_the_same(golden: tuple[Path, Expectations]) -> None:
    root, expectations = golden
    rows = read_signals(root / TEACHER.digest())
    assert rows.keys() == {bytes.fromhex(wanted["key"]) for wanted in expectations}
    for wanted in expectations:
        (found,) = rows[bytes.fromhex(wanted["key"])]
        same = ("token_ids", "split", "signal", "layer", "position")
        assert {name: found[name] for name in same} == {name: wanted[name] for name in same}
        np.testing.assert_allclose(found["values"], wanted["values"], rtol=0, atol=1e-6)


def test_what_is_written_today_has_the_golden_shape(tmp_path: Path, golden: tuple[Path, Expectations]) -> None:
    # Names, sizes and codecs of every object, names of segments aside.
    olds = [_descriptions(path) for path in (golden[0] / TEACHER.digest() / "segments").iterdir()]
    for at, (encoding, records) in enumerate(golden_signals()):
        open_cache(tmp_path / str(at)).signals.put(records, encoding=encoding)
        (new,) = (tmp_path / str(at) / TEACHER.digest() / "segments").iterdir()
        assert _descriptions(new) in olds


def _descriptions(segment: Path) -> dict[str, bytes]:
    return {path.relative_to(segment).as_posix(): path.read_bytes() for path in segment.rglob("zarr.json")}
