"""Which rows of the train split are taken as gold, where an experiment takes a few of each label."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence

from configs.task_data import GoldConfig
from evaluation.tasks.examples import Example


def drawn_gold(
    train: Sequence[Example], wanted: GoldConfig | None, *, notes: list[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples that are taken as gold, in their order, and the others.

    Drawn by what they say and not by their order: a file that was shuffled gives the same ones.
    """
    if wanted is None:
        return tuple(train), ()
    by_label: dict[tuple[str, ...], list[Example]] = defaultdict(list)
    for example in train:
        by_label[example.gold].append(example)
    chosen: set[int] = set()
    for label, examples in by_label.items():
        ranked = sorted(examples, key=lambda example: (_lot(example.text, seed=wanted.seed), example.row))
        chosen |= {example.row for example in ranked[: wanted.per_class]}
        if len(examples) < wanted.per_class:
            notes.append(
                f"data.gold.per_class={wanted.per_class}: train has {len(examples)} examples of {', '.join(label)}"
            )
    kept = tuple(example for example in train if example.row in chosen)
    return kept, tuple(example for example in train if example.row not in chosen)


def _lot(text: str, *, seed: int) -> bytes:
    return hashlib.sha256(json.dumps([seed, text]).encode()).digest()
