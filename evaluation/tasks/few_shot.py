"""Worked examples before a question: drawn from train alone, the same for everybody.

The draw depends on a seed and on what the rows say, not on their order or number. Over the labels of classification it
is balanced, taking turns. No worked example is a copy of the row that is asked, and none is shown twice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from configs import DataError
from configs.task import TaskConfig
from evaluation.tasks.contamination import same_text
from evaluation.tasks.examples import Example


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and how it is answered."""

    question: str
    answer: str


class WorkedExamples:
    """The worked examples of a task."""

    def __init__(self, task: TaskConfig, train: Sequence[Example]) -> None:
        """Draw `few_shot` of the train rows, which were read with `worked=True`.

        Raises:
            DataError: train has fewer rows that differ.
        """
        self._count = task.few_shot
        ranked = sorted(train, key=lambda example: _rank(task.few_shot_seed, example.question, *example.gold))
        different = list({same_text(example.text): example for example in reversed(ranked)}.values())[::-1]
        if len(different) < self._count:
            raise DataError(
                f"task {task.name}: few_shot={self._count}, and data.train has {len(different)} rows that differ: "
                "lower few_shot or add rows"
            )
        decks: dict[str, list[Example]] = defaultdict(list)
        for example in different:
            decks[example.gold[0] if task.kind == "classification" else ""].append(example)
        # One more than are shown: a copy of the question is left out.
        self._decks = [
            decks[label][: self._count + 1] for label in sorted(decks, key=lambda s: _rank(task.few_shot_seed, s))
        ]

    def before(self, asked: Example) -> tuple[Turn, ...]:
        """The turns that come before a question."""
        key = same_text(asked.text)
        decks = [[example for example in deck if same_text(example.text) != key] for deck in self._decks]
        in_turns = (example for example in chain.from_iterable(zip_longest(*decks)) if example is not None)
        return tuple(
            Turn(example.question, example.worked) for example, _ in zip(in_turns, range(self._count), strict=False)
        )


def _rank(seed: int, *texts: str) -> bytes:
    """A place in a shuffled order that depends on nothing but seed and texts."""
    return hashlib.sha256("\0".join((str(seed), *texts)).encode(errors="surrogatepass")).digest()
