"""Classes one by one: what a student keeps of its teacher's hits on each, and which classes are taken for another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.analysis.judging import BothAnswers
from evaluation.analysis.retention import Slice
from evaluation.results import FinalScores


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` answers, of `n` to rows of the class `gold`, were the class `said`."""

    gold: str
    said: str
    count: int
    n: int


def kept_by_label(answers: Sequence[BothAnswers]) -> tuple[Slice, ...]:
    """The answers to rows of each label, for classification: where the student falls furthest behind comes first."""
    by_label: dict[str, list[BothAnswers]] = defaultdict(list)
    for both in answers:
        by_label[both.teacher.example.gold[0]].append(both)
    slices = [
        Slice(
            label,
            len(found),
            sum(both.teacher.score for both in found) / len(found),
            sum(both.student.score for both in found) / len(found),
        )
        for label, found in by_label.items()
    ]
    return tuple(sorted(slices, key=lambda one: (one.student - one.teacher, one.name)))


def confusions(scores: FinalScores, *, at_most: int) -> tuple[Confusion, ...]:
    """The pairs of classes that are taken for each other most often; answers that cannot be read are none of them."""
    of = Counter(example.gold[0] for example in scores.examples)
    wrong = Counter(
        (example.gold[0], example.predicted[0])
        for example in scores.examples
        if example.predicted is not None and example.predicted[0] != example.gold[0]
    )
    ordered = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:at_most]
    return tuple(Confusion(gold, said, wrong[gold, said], of[gold]) for gold, said in ordered)
