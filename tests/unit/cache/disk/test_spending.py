"""What a segment's rows took, as its manifest keeps it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rewriting_builders import merge
from store_builders import VOCAB, make_record, open_cache

from cache.disk.manifests import Manifest
from cache.disk.spending import Spent, together
from cache.store import TeacherCache
from cache.upkeep.inventory import teacher_inventory

ORIGIN = {"model": "small", "vllm": "1"}


def put(root: Path, *prompts: int, spent: Spent | None = None) -> list[bytes]:
    """A segment with a row of 8 tokens for each prompt."""
    cache = TeacherCache.open(root, open_cache(root).identity, provenance=ORIGIN)
    records = [make_record([prompt] * 3 + [9] * 4 + [1], prompt_len=3) for prompt in prompts]
    with cache.writer(vocab=VOCAB) as writer:
        for record in records:
            writer.add(record)
        writer.commit(spent)
    return [record.key for record in records]


def manifests(root: Path) -> list[Manifest]:
    return open_cache(root)._library.manifests


def test_numbers_survive_a_manifest_and_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, 5, spent=Spent(1.25, 5.0, math.nan))
    (manifest,) = manifests(tmp_path)
    assert manifest.provenance == {**ORIGIN, "spent_seconds": "1.25", "spent_gpu_seconds": "5"}
    found = Spent.of(manifest.provenance)
    assert (found.seconds, found.gpu_seconds) == (1.25, 5.0) and math.isnan(found.joules)
    assert manifest.origin == ORIGIN


@pytest.mark.parametrize("text", ["many", "-3", "inf", "nan", ""])
def test_a_number_that_is_none_is_not_known(text: str) -> None:
    assert math.isnan(Spent.of({"spent_joules": text}).joules)


def test_sums_are_over_those_that_know() -> None:
    total = together([Spent(1.0, 2.0, 3.0), Spent(), Spent(10.0, 20.0, math.nan)])
    assert total == Spent(11.0, 22.0, 3.0)
    assert all(map(math.isnan, (together([]).joules, together([Spent()]).seconds)))


def test_rows_have_the_share_of_their_tokens(tmp_path: Path) -> None:
    bought = put(tmp_path, 5, 6, 7, 8, spent=Spent(4.0, 8.0, 100.0))
    before = put(tmp_path, 9)
    cache = open_cache(tmp_path)
    assert cache.spent(bought[:1], k=8) == (8, Spent(1.0, 2.0, 25.0))
    assert cache.spent([*bought, *before, bought[0]], k=8) == (40, Spent(4.0, 8.0, 100.0)), "older rows do not say"
    tokens, spent = cache.spent(before, k=8)
    assert tokens == 8 and math.isnan(spent.joules)
    assert cache.spent([b"x" * 32], k=0)[0] == 0


def test_merging_adds_up_and_what_is_superseded_takes_its_part_with_it(tmp_path: Path) -> None:
    first = put(tmp_path, 5, 6, spent=Spent(2.0, 2.0, 40.0))
    put(tmp_path, 6, spent=Spent(1.0, 1.0, 30.0))
    last = put(tmp_path, 7, spent=Spent(3.0, 3.0, 60.0))
    assert len(merge(tmp_path).merged) == 1
    (manifest,) = manifests(tmp_path)
    assert Spent.of(manifest.provenance) == Spent(5.0, 5.0, 100.0)
    assert open_cache(tmp_path).spent([*first, *last], k=8) == (24, Spent(5.0, 5.0, 100.0))


def test_rows_of_known_and_of_unknown_cost_are_not_mixed(tmp_path: Path) -> None:
    put(tmp_path, 5, spent=Spent(1.0, 1.0, 10.0))
    put(tmp_path, 6)
    put(tmp_path, 7, spent=Spent(1.0, 1.0, 20.0))
    put(tmp_path, 8)
    assert len(merge(tmp_path).merged) == 2
    known = [Spent.of(each.provenance) for each in manifests(tmp_path) if each.provenance != ORIGIN]
    assert known == [Spent(2.0, 2.0, 30.0)]


def test_an_inventory_names_an_origin_once(tmp_path: Path) -> None:
    put(tmp_path, 5, spent=Spent(1.0, 1.0, 10.0))
    put(tmp_path, 6, spent=Spent(2.0, 2.0, 20.0))
    cache = open_cache(tmp_path)
    assert teacher_inventory(cache._library.storage, identity=cache.identity.digest()).provenances == (ORIGIN,)
    assert json.loads(manifests(tmp_path)[0].to_json())["body"]["format"] == 1
