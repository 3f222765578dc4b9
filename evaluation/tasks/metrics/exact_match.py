"""Whether the final answer is the right one: numbers by their value, other text by its letters."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import TaskExample
from evaluation.tasks.metrics.rows import row_sums
from evaluation.tasks.numbers import canonical

EXACT_MATCH = Metric("exact_match", better="higher", unit="fraction", finish=ratio_of)


def exact_match(examples: Sequence[TaskExample]) -> tuple[Measured, ...]:
    """The share of answers that equal an accepted one (`numbers.canonical`)."""
    hits = [
        (float({canonical(text) for text in example.predicted or ()} <= set(map(canonical, example.gold))), 1.0)
        if example.predicted
        else (0.0, 1.0)
        for example in examples
    ]
    return (Measured(EXACT_MATCH, row_sums(examples, hits, columns=2)),)
