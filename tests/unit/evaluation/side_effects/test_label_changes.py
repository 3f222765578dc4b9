"""Changes of answers under a swap are means over texts."""

from __future__ import annotations

import pytest

from evaluation.side_effects.label_changes import changed_share, mean_change


def test_both_are_means_a_row_a_text() -> None:
    assert changed_share([1.0, 0.0, 0.5]).value == pytest.approx(0.5)
    moved = mean_change([0.1, 0.3])
    assert moved.value == pytest.approx(0.2) and len(moved.sums) == 2 and moved.metric.unit == "fraction"
