from __future__ import annotations

from pathlib import Path

from set_builders import RULES, load, place

from orchestration.inputs.example_sets import Copies
from orchestration.inputs.left_out_examples import apart_from_held_out
from orchestration.inputs.tasks import load_task

__all__ = ["place"]


def test_it_is_known_what_texts_were_made_of(place: Path) -> None:
    sets = load(place, transfer=[{"path": "transfer.jsonl"}], augment={"more": RULES})
    (first, *_), last = sets.copies["more"], sets.copies["more"][-1]
    assert first == Copies(("train", 0), (("more", 0), ("train", 0), None))
    assert (last.source, last.places[0]) == (("transfer", 1), ("more", 11))
    by_place = {(name, each.row): each.text for name, examples in sets.sets.items() for each in examples}
    for each in sets.copies["more"]:
        (copy, itself, _), text = each.places, by_place[each.source]
        assert copy is not None and by_place[copy] == f"{text} {text}" and itself == each.source
    assert apart_from_held_out(sets, load_task(place / "task/moods.yaml"), read=list).copies == sets.copies
