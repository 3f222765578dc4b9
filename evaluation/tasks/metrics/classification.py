"""Accuracy, macro-F1 and the multi-class correlation coefficient of Matthews.

An answer without a label is a miss: it counts against its gold label and for no other. Macro-F1 is the mean over the
labels that occur, as gold or as an answer (scikit-learn's `f1_score(labels=..., average="macro", zero_division=nan)`):
a label that never occurs has no F1, and counting it as 0 would punish small test sets.

The correlation (Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006) is undefined where all rows have one
label. Where the rows have several and the answers only one it is 0, the value of scikit-learn and of chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import TaskExample
from evaluation.tasks.metrics.rows import ratio, row_sums


def classification(examples: Sequence[TaskExample], labels: Sequence[str]) -> tuple[Measured, ...]:
    """Accuracy, macro-F1 and MCC."""
    places = {label: place for place, label in enumerate(labels)}
    unread = len(labels)
    gold = np.array([places[example.gold[0]] for example in examples], dtype=np.int64)
    answered = np.array([places.get((example.predicted or ("",))[0], unread) for example in examples], dtype=np.int64)
    hits = gold == answered
    one_hot = np.eye(unread + 1)
    rights = np.stack([hits, np.ones(len(hits))], axis=1) if len(hits) else np.zeros((0, 2))
    by_label = [one_hot[gold][:, :unread] * hits[:, None], one_hot[gold][:, :unread], one_hot[answered][:, :unread]]
    for_mcc = [hits[:, None], one_hot[gold][:, :unread], one_hot[answered]]
    return (
        Measured(ACCURACY, row_sums(examples, rights, columns=2)),
        Measured(MACRO_F1, row_sums(examples, np.concatenate(by_label, axis=1), columns=3 * unread)),
        Measured(MCC, row_sums(examples, np.concatenate(for_mcc, axis=1), columns=2 * unread + 2)),
    )


def _macro_f1(sums: Float64[np.ndarray, "*D M"]) -> Float64[np.ndarray, "*D"]:
    """Columns: hits, gold and answers of every label."""
    hits, gold, answered = (part for part in np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0))
    occurs = gold + answered > 0
    f1 = np.where(occurs, ratio(2.0 * hits, gold + answered), 0.0)
    return ratio(f1.sum(axis=-1), occurs.sum(axis=-1).astype(np.float64))


def _mcc(sums: Float64[np.ndarray, "*D M"]) -> Float64[np.ndarray, "*D"]:
    """Columns: hits, gold of C labels, answers of C labels, unread answers."""
    labels = (sums.shape[-1] - 2) // 2
    hits, gold, answered = sums[..., 0], sums[..., 1 : 1 + labels], sums[..., 1 + labels :]
    rows = gold.sum(axis=-1)
    together = hits * rows - (gold * answered[..., :labels]).sum(axis=-1)
    gold_spread = rows**2 - (gold**2).sum(axis=-1)
    answer_spread = rows**2 - (answered**2).sum(axis=-1)
    constant_answer = (answer_spread == 0) & (gold_spread > 0)
    return np.where(constant_answer, 0.0, ratio(together, np.sqrt(gold_spread * answer_spread)))


ACCURACY = Metric("accuracy", better="higher", unit="fraction", finish=ratio_of)
MACRO_F1 = Metric("macro_f1", better="higher", unit="fraction", finish=_macro_f1)
MCC = Metric("mcc", better="higher", unit="fraction", finish=_mcc)
