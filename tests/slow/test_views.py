"""One copy of each text is learned by heart; many copies, and a live teacher, teach what they have not shown."""

from __future__ import annotations

import pytest
import torch

from benchmarks.views import compare_views

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_one_copy_is_learned_by_heart_and_many_are_not() -> None:
    with torch.random.fork_rng(devices=[]):
        single, many, live = compare_views()
    # Measured: 1.40 nats held out where 0.013 are left of what is learned; 0.63 and 0.57 with many copies and live.
    assert single.over_learned > 40
    for result in (many, live):
        assert result.held_out[-1] < 0.6 * single.held_out[-1], result
        assert result.over_learned < 15, result
