"""Pins: what they say, and that whoever cannot be understood keeps its segments."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from garbage_builders import DAY, removed, sweep
from rewriting_builders import DIGEST, names, put_each, storage_of
from store_builders import open_cache, teacher_dir

from cache.pinning import pin_view, touch_pin
from cache.pins import read_pins
from cache.upkeep.rewriting import compact


def test_a_pin_lives_as_long_as_it_is_touched(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5])
    view = open_cache(tmp_path).view([records[0].key], dataset="d", k=8)
    for path in (teacher_dir(tmp_path) / "pins").glob(f"{view.digest}.*"):
        if path.suffix in (".json", ".places"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"used": time.time() - 31 * DAY}))
    assert f"pins/{view.digest}.json" in removed(sweep(tmp_path, dry_run=True))
    touch_pin(storage_of(tmp_path), view.digest)
    assert sweep(tmp_path, dry_run=True).removed == ()
    touch_pin(storage_of(tmp_path), "0" * 64)
    assert {name.rpartition(".")[2] for name in names(tmp_path, "pins")} == {"json", "npz", "places"}


@pytest.mark.parametrize("used", ["NaN", "1e400", "-1", "1e300", '"now"', "[]", str(10**400)])
def test_a_pin_of_no_time_lives(tmp_path: Path, used: str) -> None:
    records = put_each(tmp_path, [5])
    view = open_cache(tmp_path).view([records[0].key], dataset="d", k=8)
    for path in (teacher_dir(tmp_path) / "pins").glob("*.places"):
        path.unlink()
    path = teacher_dir(tmp_path) / "pins" / f"{view.digest}.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"used": 0}).replace('"used": 0', f'"used": {used}'))
    assert sweep(tmp_path).removed == ()
    (pin,) = read_pins(storage_of(tmp_path))
    assert (pin.readable, pin.segments) == (False, view.segments)


@pytest.mark.parametrize("text", ["", "[]", '{"used": 0}', '{"segments": [1], "dataset": "d", "used": 0}'])
def test_a_pin_that_cannot_be_read_lives(tmp_path: Path, text: str) -> None:
    records = put_each(tmp_path, [5, 6])
    view = open_cache(tmp_path).view([records[0].key], dataset="d", k=8)
    path = teacher_dir(tmp_path) / "pins" / f"{view.digest}.json"
    path.write_text(text)
    compact(storage_of(tmp_path), identity=DIGEST)
    # Its view still says what it needs.
    (pin,) = read_pins(storage_of(tmp_path))
    assert (pin.readable, pin.segments, pin.dataset) == (False, view.segments, "d")
    assert sweep(tmp_path, grace_s=-1.0).kept == view.segments
    path.with_suffix(".npz").write_bytes(b"")
    put_each(tmp_path, [7])
    compact(storage_of(tmp_path), identity=DIGEST)
    report = sweep(tmp_path, grace_s=-1.0)
    assert len(report.kept) == 3
    assert report.removed == ()
    pin_view(storage_of(tmp_path), view)
    assert read_pins(storage_of(tmp_path))[0].readable
