from __future__ import annotations

from pathlib import Path

from set_builders import TRAIN, load, place, texts, write

__all__ = ["place"]


def test_gold_is_drawn_by_label_whatever_the_order_of_the_file(place: Path) -> None:
    drawn = texts(load(place, gold={"per_class": 2, "rest": "drop"}), "train")
    assert [text.split()[0] for text in drawn] == ["sunny", "sunny", "grey", "grey"]
    write(place / "task/train.jsonl", TRAIN[::-1])
    assert sorted(texts(load(place, gold={"per_class": 2, "rest": "drop"}), "train")) == sorted(drawn)
    others = texts(load(place, gold={"per_class": 2, "seed": 1, "rest": "drop"}), "train")
    assert sorted(others) != sorted(drawn)


def test_a_label_with_too_few_examples_is_said(place: Path) -> None:
    sets = load(place, gold={"per_class": 5, "rest": "drop"})
    assert len(sets.of(["train"])) == 9
    assert sets.notes == ("data.gold.per_class=5: train has 4 examples of bad",)
