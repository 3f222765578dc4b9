"""What is said of a view beside its pin."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from rewriting_builders import DIGEST, put_each, storage_of
from store_builders import (
    VOCAB,
    make_record,
    open_cache,
    teacher_dir,
)

from cache.pinning import pin_view
from cache.pins import read_pins
from cache.upkeep.rewriting import compact


def test_a_view_pins_its_segments(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2)
    cache.put([record], vocab=VOCAB)
    view = cache.view([record.key], dataset="train", k=4)
    pin = json.loads((teacher_dir(tmp_path) / "pins" / f"{view.digest}.json").read_text())
    assert time.time() - pin.pop("used") < 600
    assert (pin["view"], pin["dataset"], pin["segments"]) == (view.digest, "train", list(view.segments))
    assert (pin["rows"], pin["tokens"], pin["response_tokens"], pin["k"]) == (1, 4, 2, 4)
    assert cache.view([record.key], dataset="train", k=4).digest == view.digest


@pytest.mark.parametrize("moment", ["before the marks", "after the marks"])
def test_a_view_that_is_pinned_during_a_merge_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    records = put_each(tmp_path, [5, 6])
    reader = open_cache(tmp_path)

    def pinning(name: str) -> None:
        if (
            name
            == {"before the marks": "rewrite-before-tombstones", "after the marks": "rewrite-before-delete"}[moment]
        ):
            reader.view([record.key for record in records], dataset="d", k=8)

    monkeypatch.setattr("cache.upkeep.replacing.failpoint", pinning)
    ((new, _),) = compact(storage_of(tmp_path), identity=DIGEST).merged
    (pin,) = read_pins(storage_of(tmp_path))
    assert pin.followed == (new,)


def test_two_that_pin_one_view_at_once_both_keep_their_segments(tmp_path: Path) -> None:
    records = put_each(tmp_path, [5, 6])
    old = open_cache(tmp_path)
    early = old.view([record.key for record in records], dataset="d", k=8)
    shutil.rmtree(teacher_dir(tmp_path) / "pins")
    compact(storage_of(tmp_path), identity=DIGEST)
    late = open_cache(tmp_path).view([record.key for record in records], dataset="d", k=8)
    assert late.digest == early.digest and late.segments != early.segments
    # The one that looked first writes last, and knows nothing of the other.
    pins = teacher_dir(tmp_path) / "pins"
    base = (pins / f"{late.digest}.json").read_text()
    pin_view(storage_of(tmp_path), early, cut=1)
    fields = json.loads((pins / f"{late.digest}.json").read_text())
    assert fields["segments"] == list(early.segments) != json.loads(base)["segments"]
    (pins / f"{late.digest}.json").write_text(json.dumps(fields | {"earlier": {}, "followed": []}))
    (pin,) = read_pins(storage_of(tmp_path))
    assert pin.keeps(late.segments[0]) and all(pin.keeps(segment) for segment in early.segments)
