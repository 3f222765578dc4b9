"""Log-probabilities of sentences behind their context, against the whole distribution of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from audited_runs import ROOMY
from tiny_llama import full_logprobs

from configs import ModelError
from configs.models import ModelSource
from evaluation.side_effects.preferences import SentencePair
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.sentences import pair_logprobs
from orchestration.comparison.finished_models import FinishedModel
from orchestration.inputs.models import ModelFiles, materialise


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return materialise(ModelSource(random=ROOMY, seed=0), models_root=tmp_path_factory.mktemp("models"))


def test_sentences_are_scored_whole_and_contexts_are_not(files: ModelFiles) -> None:
    model = FinishedModel("kd", "student", "ab", files.directory, "float32")
    pairs = [SentencePair("k", "He ran.", "She ran."), SentencePair("k", "Bob", "Al", context="Who?")]
    first, second = pair_logprobs(pairs, model=model, tokenizer=files.tokenizer, beliefs=Beliefs("cpu"))

    def truth(context: str, text: str) -> float:
        tokenizer = files.tokenizer
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        before = tokenizer.encode(context) if context else [start]
        ids = (*before, *tokenizer.encode(f" {text}" if context else text, add_special_tokens=False))
        every = full_logprobs(files.directory, ids)
        return float(sum(every[at - 1, ids[at]] for at in range(len(before), len(ids))))

    np.testing.assert_allclose(first, [truth("", "He ran."), truth("Who?", "Bob")], atol=1e-3)
    np.testing.assert_allclose(second, [truth("", "She ran."), truth("Who?", "Al")], atol=1e-3)


def test_a_tokenizer_without_a_beginning_is_said(files: ModelFiles) -> None:
    class Bare:
        bos_token_id = eos_token_id = None

    model, bare = FinishedModel("kd", "student", "ab", files.directory, "float32"), Bare()
    told: Any = bare
    with pytest.raises(ModelError, match="kd: its tokenizer has neither BOS nor EOS"):
        pair_logprobs([], model=model, tokenizer=told, beliefs=Beliefs("cpu"))
