"""Log-probabilities of given tokens against a dense computation in double precision, however they are batched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from student_builders import PADDED, record, tiny_llama
from transformers import AutoModelForCausalLM

from cache.records import ScoreRequest
from configs.errors import ModelError
from student_train.likelihoods import likelihoods, logprobs_of
from student_train.models.decoder import load_decoder

SEQUENCES = [
    ScoreRequest(tuple(map(int, each.token_ids)), each.prompt_len)
    for each in (record(1, prompt=4, response=6), record(2, prompt=3, response=1), record(3, prompt=7, response=9))
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "student", layers=1, seed=1)


def dense(place: Path, sequence: ScoreRequest) -> np.ndarray:
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(place)(torch.tensor([sequence.token_ids])).logits[0]
    every = logits[sequence.prompt_len - 1 : -1].double().log_softmax(1).numpy()
    found: np.ndarray = every[np.arange(len(every)), np.array(sequence.token_ids[sequence.prompt_len :])]
    return found


@pytest.mark.parametrize("tokens", [1, 17, 4096])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_they_are_those_of_a_dense_computation_in_the_order_asked(
    place: Path, tokens: int, order: tuple[int, ...]
) -> None:
    asked = [SEQUENCES[at] for at in order]
    found = likelihoods(place, asked, tokens_per_batch=tokens)
    assert [len(each) for each in found] == [len(each.token_ids) - each.prompt_len for each in asked]
    for sequence, each in zip(asked, found, strict=True):
        np.testing.assert_allclose(each, dense(place, sequence), atol=1e-5)


def test_nothing_to_read_is_nothing(place: Path) -> None:
    assert likelihoods(place, []) == []


def test_what_the_model_cannot_read_is_named(place: Path) -> None:
    decoder = load_decoder(place, dtype=torch.float32)
    with pytest.raises(ModelError, match=f"token {PADDED} is to be read, and the model has {PADDED}"):
        logprobs_of(decoder, [ScoreRequest((1, PADDED), 1)])
    most = decoder.model.config.max_position_embeddings
    with pytest.raises(
        ModelError, match=f"a sequence of {most + 1:,} tokens is to be read, and the model reads {most:,}"
    ):
        likelihoods(place, [ScoreRequest((1,) * (most + 1), 1)])
