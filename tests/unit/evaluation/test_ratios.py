"""Ratios by hand, and their standard error against that of resampled sequences."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.ratios import ratio_of, ratio_stderr


def test_a_ratio_of_every_row_and_none_of_nothing() -> None:
    found = ratio_of(np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]))
    assert found[:2].tolist() == [0.75, 0.0] and np.isnan(found[2])


def test_it_is_the_spread_of_the_ratio_of_resampled_sequences() -> None:
    rng = np.random.default_rng(7)
    counts = rng.integers(1, 20, size=150)
    sums = rng.normal(loc=2.0 * counts, scale=counts)
    drawn = rng.integers(0, len(sums), size=(4000, len(sums)))
    ratios = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    assert ratio_stderr(sums, counts) == pytest.approx(ratios.std(), rel=0.08)


def test_it_counts_sequences_and_not_their_tokens() -> None:
    sums = np.array([1.0, 2.0, 4.0])
    often = ratio_stderr(50 * sums, np.full(3, 50))
    assert often == pytest.approx(ratio_stderr(sums, np.ones(3))) == pytest.approx(sums.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(("sums", "counts"), [([1.0], [4]), ([0.0, 0.0], [0, 0]), ([], [])])
def test_of_one_sequence_or_of_nothing_there_is_none(sums: list[float], counts: list[int]) -> None:
    assert np.isnan(ratio_stderr(np.array(sums), np.array(counts)))
