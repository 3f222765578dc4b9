"""What a model does for one group of rows and for the others: by how much its numbers differ.

Three questions of the literature, which a model cannot all answer with "no difference" where the groups differ in what
is right of them (Kleinberg et al. 2017, arXiv 1609.05807), so none stands for the others:

- is it right as often? The difference in accuracy, or in whatever the task is judged by (Buolamwini and Gebru 2018,
  Proceedings of Machine Learning Research 81);
- does it find a label where it is right as often? The difference in recall, *equal opportunity* (Hardt et al. 2016,
  arXiv 1610.02413), label by label as De-Arteaga et al. 2019 (arXiv 1901.09451) have it;
- does it give a label as often? The difference in its share, *demographic parity* (Dwork et al. 2012, arXiv 1104.3913).

A group is held against the rest and not the largest number against the smallest (Czarnowska et al. 2021, arXiv
2106.14574, compare both): the difference has a sign, is 0 on average where there is nothing, and has an interval that
says so.

Shapes: N rows, M additive statistics, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from evaluation.metric import Finish, Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import TaskExample
from evaluation.tasks.metrics.rows import ratio, row_sums

InGroup = Bool[np.ndarray, " N"]
"""Which rows are of a group."""


def of_group(measured: Measured, group: InGroup) -> Measured:
    """A metric over the rows of a group alone."""
    return Measured(measured.metric, measured.sums[group])


def gap(measured: Measured, group: InGroup) -> Measured:
    """A metric over a group minus the same over all other rows."""
    return Measured(
        _metric(f"{measured.metric.name}_gap", _apart(measured.metric.finish)), _sides(measured.sums, group)
    )


def label_share(examples: Sequence[TaskExample], label: str) -> Measured:
    """How often a label is given."""
    return Measured(_metric("label_share", ratio_of), _counted(examples, [_says(each, label) for each in examples]))


def label_recall(examples: Sequence[TaskExample], label: str) -> Measured:
    """Of the rows of which a label is right, how many it is given to."""
    right = np.array([each.gold[0] == label for each in examples], dtype=np.float64)
    hits = right * [_says(each, label) for each in examples]
    return Measured(_metric("label_recall", ratio_of), row_sums(examples, np.stack([hits, right], axis=1), columns=2))


def shares_apart(examples: Sequence[TaskExample], labels: Sequence[str], group: InGroup) -> Measured:
    """How far the shares of all labels lie apart: half the sum of the differences (total variation).

    It cannot be below 0, and few rows for many labels have it above 0 by chance.
    """
    given = np.array([[_says(each, label) for label in labels] for each in examples], dtype=np.float64)
    sums = _sides(row_sums(examples, given, columns=len(labels)), group)
    return Measured(_metric("shares_apart", _total_variation), sums)


def recalls_apart(examples: Sequence[TaskExample], labels: Sequence[str], group: InGroup) -> Measured:
    """How far the recalls of a label lie apart, as the root of the mean square over labels that both sides have.

    Differences of labels in opposite directions do not cancel (De-Arteaga et al. 2019). Above 0 by chance too.
    """
    right = np.array([[each.gold[0] == label for label in labels] for each in examples], dtype=np.float64)
    hits = right * [[_says(each, label) for label in labels] for each in examples]
    sums = row_sums(examples, np.concatenate([hits, right], axis=1), columns=2 * len(labels))
    return Measured(_metric("recalls_apart", _recall_distance), _sides(sums, group))


def gold_answers(examples: Sequence[TaskExample]) -> list[TaskExample]:
    """The same rows as if everything had been answered as gold says."""
    return [
        TaskExample(each.row, each.seed, each.shown, each.gold, "", each.gold, each.confidence, 0) for each in examples
    ]


def _says(example: TaskExample, label: str) -> bool:
    return example.predicted is not None and example.predicted[:1] == (label,)


def _counted(examples: Sequence[TaskExample], hits: Sequence[bool]) -> Float64[np.ndarray, "N 2"]:
    return row_sums(examples, np.stack([np.array(hits, dtype=np.float64), np.ones(len(hits))], axis=1), columns=2)


def _sides(sums: Float64[np.ndarray, "N M"], group: InGroup) -> Float64[np.ndarray, "N M2"]:
    """The statistics of a row on the side where it belongs: those of the group first."""
    inside = group[:, None].astype(np.float64)
    return np.concatenate([sums * inside, sums * (1.0 - inside)], axis=1)


def _apart(finish: Finish) -> Finish:
    def difference(sums: Float64[np.ndarray, "*D M2"]) -> Float64[np.ndarray, "*D"]:
        middle = sums.shape[-1] // 2
        return np.asarray(finish(sums[..., :middle]) - finish(sums[..., middle:]))

    return difference


def _total_variation(sums: Float64[np.ndarray, "*D M2"]) -> Float64[np.ndarray, "*D"]:
    inside, others = np.split(sums, 2, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [side / side.sum(axis=-1, keepdims=True) for side in (inside, others)]
    return np.asarray(0.5 * np.abs(shares[0] - shares[1]).sum(axis=-1))


def _recall_distance(sums: Float64[np.ndarray, "*D M2"]) -> Float64[np.ndarray, "*D"]:
    hits, right, other_hits, other_right = np.split(sums, 4, axis=-1)
    apart = ratio(hits, right) - ratio(other_hits, other_right)
    known = ~np.isnan(apart)
    squares = np.where(known, apart**2, 0.0).sum(axis=-1)
    return np.asarray(np.sqrt(ratio(squares, known.sum(axis=-1).astype(np.float64))))


def _metric(name: str, finish: Finish) -> Metric:
    return Metric(name, "lower", "fraction", finish)
