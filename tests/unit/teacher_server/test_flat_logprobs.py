"""A flat container's lists become the rows that the engine meant."""

from __future__ import annotations

import numpy as np
import pytest
from flat_containers import Flat, container, logprobs

from configs.errors import EngineError
from teacher_server.flat_logprobs import FlatRows


@pytest.mark.parametrize(("first", "empty_first"), [(0, False), (2, False), (1, True), (3, True)])
def test_rows_from_a_position_on(first: int, empty_first: bool) -> None:
    table, targets = logprobs(4), [3, 4, 5, 6]
    flat = container(table, targets, k=2, empty_first=empty_first)
    block = FlatRows(flat).block(first=first)
    skipped = first - empty_first
    best = np.argsort(-table, axis=1)[skipped:, :2]
    assert block.ids.tolist() == np.concatenate([np.array(targets)[skipped:, None], best], axis=1).tolist()
    np.testing.assert_array_equal(block.logprobs, np.take_along_axis(table[skipped:], block.ids, axis=1))
    assert block.ranks.tolist() == (1 + (table[skipped:] > block.logprobs[:, :1]).sum(axis=1)).tolist()


@pytest.mark.parametrize("damage", ["an entry too few", "an entry too many"])
def test_rows_of_other_lengths_are_an_error(damage: str) -> None:
    flat = container(logprobs(3), [3, 4, 5], k=4)
    if damage == "an entry too few":
        del flat.token_ids[-1], flat.logprobs[-1], flat.ranks[-1]
    else:
        flat.start_indices[-1] += 1
    with pytest.raises(EngineError, match="not of one length"):
        FlatRows(flat).block(first=0)


def test_a_position_without_rows_is_an_error() -> None:
    with pytest.raises(EngineError, match="no rows of log-probabilities from position 1 on"):
        FlatRows(Flat(start_indices=[0])).block(first=1)
