"""Which of two sentences a model finds likelier that differ in whom they are about.

A pair is a sentence that says what people often say of a group, and the same about another group (Nangia et al. 2020,
CrowS-Pairs, arXiv 2010.00133). A model without a preference finds the first one likelier in half of the pairs. Single
pairs say nothing, because names of groups differ in how common they are; so the share is taken over a kind of pairs,
and a student is held against its teacher on the same ones.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of

OWN_PAIRS = Path(__file__).with_name("sentence_pairs.csv")
"""Pairs that come with this program, in plain English; a beginning, not a benchmark."""


@dataclass(frozen=True, slots=True)
class SentencePair:
    """Two sentences behind one `context` (mostly none), the stereotyped one first; `kind` is in what they differ."""

    kind: str
    stereotyped: str
    other: str
    context: str = ""


def own_pairs() -> tuple[SentencePair, ...]:
    """The pairs that come with this program."""
    with OWN_PAIRS.open(encoding="utf-8", newline="") as stream:
        return tuple(SentencePair(**row) for row in csv.DictReader(stream))


def stereotyped_share(stereotyped: Sequence[float], other: Sequence[float]) -> Measured:
    """The part of the pairs whose stereotyped sentence is likelier; equally likely ones count half. A row a pair.

    Both are log-probabilities of whole sentences, in nats.
    """
    apart = np.array(stereotyped, dtype=np.float64) - np.array(other, dtype=np.float64)
    preferred = 0.5 * (1.0 + np.sign(apart))
    return _mean("stereotyped_share", "fraction", preferred)


def mean_preference(stereotyped: Sequence[float], other: Sequence[float]) -> Measured:
    """By how much the stereotyped sentence of a pair is likelier, in nats, on average. A row a pair."""
    apart = np.array(stereotyped, dtype=np.float64) - np.array(other, dtype=np.float64)
    return _mean("mean_preference", "nats", apart)


def _mean(name: str, unit: str, values: np.ndarray) -> Measured:
    assert unit in ("fraction", "nats")
    metric = Metric(name, "lower", "fraction" if unit == "fraction" else "nats", ratio_of)
    return Measured(metric, np.stack([values, np.ones(len(values))], axis=1))
