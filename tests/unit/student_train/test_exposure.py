"""Two models along the same sequences, against a dense computation of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from student_builders import PADDED, VOCAB, record, tiny_llama
from transformers import AutoModelForCausalLM

from cache.records import ScoreRequest
from configs.errors import ModelError
from student_train import exposure
from student_train.exposure import divergences, shared_rows
from student_train.models.decoder import Decoder, load_decoder

SEQUENCES = [
    ScoreRequest(tuple(map(int, each.token_ids)), each.prompt_len)
    for each in (record(1, prompt=4, response=6), record(2, prompt=3, response=1), record(3, prompt=7, response=9))
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return tiny_llama(root / "student", layers=1, seed=1), tiny_llama(root / "teacher", seed=2)


@pytest.fixture(scope="module")
def pair(places: tuple[Path, Path]) -> tuple[Decoder, Decoder]:
    student, teacher = (load_decoder(each, dtype=torch.float32) for each in places)
    return student, teacher


def dense(place: Path, sequence: ScoreRequest, *, rows: int) -> np.ndarray:
    """Log-probabilities of a plain model at the response positions, in double precision."""
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(place)(torch.tensor([sequence.token_ids])).logits[0]
    found: np.ndarray = logits[sequence.prompt_len - 1 : -1, :rows].double().log_softmax(1).numpy()
    return found


@pytest.mark.parametrize("tokens", [1, 20, 4096])
@pytest.mark.parametrize("chunk", [1, 5, 128])
@pytest.mark.parametrize("rows", [VOCAB, PADDED])
def test_divergences_are_those_of_a_dense_computation(
    places: tuple[Path, Path], pair: tuple[Decoder, Decoder], monkeypatch: pytest.MonkeyPatch,
    tokens: int, chunk: int, rows: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(exposure, "_CHUNK", chunk)
    found = divergences(*pair, SEQUENCES, rows=rows, tokens_per_batch=tokens)
    assert [len(each.kl) for each in found] == [6, 1, 9]
    for sequence, each in zip(SEQUENCES, found, strict=True):
        q, p = (dense(place, sequence, rows=rows) for place in places)
        at = np.arange(len(q)), np.array(sequence.token_ids[sequence.prompt_len :])
        np.testing.assert_allclose(each.kl, (np.exp(p) * (p - q)).sum(axis=1), atol=1e-4)
        np.testing.assert_allclose(each.gap, q[at] - p[at], atol=1e-4)


def test_a_model_does_not_part_from_itself(pair: tuple[Decoder, Decoder]) -> None:
    for each in divergences(pair[1], pair[1], SEQUENCES, rows=PADDED, tokens_per_batch=64):
        assert not each.kl.any() and not each.gap.any()


def test_both_distributions_are_over_the_same_tokens(pair: tuple[Decoder, Decoder], tmp_path: Path) -> None:
    student, teacher = pair
    assert shared_rows(student, teacher, vocab=VOCAB) == PADDED
    unpadded = Decoder(student.model, student.body, torch.nn.Parameter(student.head[:VOCAB]), None)
    assert shared_rows(unpadded, teacher, vocab=VOCAB) == VOCAB
    with pytest.raises(ModelError, match=r"the model has 97 tokens and its teacher 104, but the tokenizer has 98"):
        shared_rows(unpadded, teacher, vocab=VOCAB + 1)


def test_a_token_that_they_do_not_share_is_named(pair: tuple[Decoder, Decoder]) -> None:
    strange = ScoreRequest((3, 4, PADDED - 1), 2)
    with pytest.raises(ModelError, match=r"^token 103 was written, but model and teacher share 97"):
        divergences(*pair, [strange], rows=VOCAB, tokens_per_batch=64)
