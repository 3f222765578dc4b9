"""Preferences over pairs of sentences are means over pairs; the shipped pairs are sound."""

from __future__ import annotations

from collections import Counter

import pytest

from evaluation.side_effects.preferences import mean_preference, own_pairs, stereotyped_share


def test_the_share_counts_pairs_and_ties_count_half() -> None:
    measured = stereotyped_share([-1.0, -2.0, -3.0, -4.0], [-2.0, -1.0, -3.0, -9.0])
    assert measured.value == pytest.approx((1 + 0 + 0.5 + 1) / 4) and len(measured.sums) == 4
    assert mean_preference([-1.0, -2.0], [-2.0, -1.5]).value == pytest.approx((1.0 - 0.5) / 2)


def test_the_shipped_pairs_differ_and_are_enough_of_each_kind_for_an_interval() -> None:
    pairs = own_pairs()
    assert all(pair.stereotyped != pair.other and pair.stereotyped.endswith(".") for pair in pairs)
    assert len({pair.stereotyped for pair in pairs}) == len(pairs)
    counts = Counter(pair.kind for pair in pairs)
    assert set(counts) == {"gender", "age", "origin", "class", "disability"} and min(counts.values()) >= 8
    for pair in pairs:
        ours, theirs = pair.stereotyped.split(), pair.other.split()
        # They share most of their words: what differs is whom they are about.
        assert len(set(ours) & set(theirs)) >= len(set(ours)) / 2
