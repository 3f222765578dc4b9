"""A model is asked once for each sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_llama import full_logprobs, save_tiny_llama

from cache import ScoreRequest
from orchestration.audits import beliefs as module
from orchestration.audits.beliefs import Beliefs
from orchestration.comparison.finished_models import FinishedModel


def test_each_sequence_is_read_once_and_given_in_the_order_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FinishedModel("kd", "student", "ab", save_tiny_llama(tmp_path, seed=1), "float32")
    first, second, third = (ScoreRequest((1, 5, 9, number), 2) for number in (3, 4, 6))
    asked: list[int] = []
    real = module.likelihoods

    def counted(*arguments: object, **more: object) -> object:
        asked.append(len(arguments[1]))  # type: ignore[arg-type]
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "likelihoods", counted)
    beliefs = Beliefs("cpu")
    one = beliefs.of(model, [first, second, first])
    two = beliefs.of(model, [third, second])
    beliefs.of(model, [third])
    assert asked == [2, 1]
    for sequence, found in zip((first, second, first, third, second), (*one, *two), strict=True):
        every = full_logprobs(model.directory, sequence.token_ids)
        truth = [every[at - 1, sequence.token_ids[at]] for at in (2, 3)]
        np.testing.assert_allclose(found, truth, atol=1e-4)
