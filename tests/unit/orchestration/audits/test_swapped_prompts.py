"""Prompts that name somebody are swapped in their tokens, and what that changes is measured on the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audited_runs import ROOMY
from tiny_llama import full_logprobs

from cache import TeacherRecord
from configs.models import ModelSource
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.swapped_prompts import change_under_swap, swapped_prompts
from orchestration.comparison.finished_models import FinishedModel
from orchestration.inputs.models import ModelFiles, materialise


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return materialise(ModelSource(random=ROOMY, seed=0), models_root=tmp_path_factory.mktemp("models"))


def record(files: ModelFiles, prompt: str, answer: str) -> TeacherRecord:
    ids, more = (files.tokenizer.encode(text, add_special_tokens=False) for text in (prompt, answer))
    return TeacherRecord(b"", np.array([*ids, *more], dtype=np.int32), len(ids), "stop", "decode")


def test_only_prompts_about_somebody_are_swapped_and_keep_their_answer(files: ModelFiles) -> None:
    records = [record(files, text, "yes") for text in ("Is he in?", "Is it on?", "Ask Emma.", "Ask her.")]
    found = swapped_prompts(records, files.tokenizer, at_most=2)
    texts = [files.tokenizer.decode(each.swapped.token_ids) for each in found]
    assert texts == ["Is she in?yes", "Ask James.yes"]
    assert [each.as_it_was.token_ids for each in found] == [tuple(records[at].token_ids.tolist()) for at in (0, 2)]
    assert all(
        each.swapped.token_ids[each.swapped.prompt_len :] == each.as_it_was.token_ids[each.as_it_was.prompt_len :]
        for each in found
    )


def test_the_change_is_the_mean_over_the_answers_tokens(files: ModelFiles, tmp_path: Path) -> None:
    model = FinishedModel("kd", "student", "ab", files.directory, "float32")
    prompts = swapped_prompts(
        [record(files, "Is he in?", "yes"), record(files, "Her cat", "no")], files.tokenizer, at_most=9
    )
    measured = change_under_swap(prompts, model=model, beliefs=Beliefs("cpu"))
    truth = []
    for each in prompts:
        answers = []
        for sequence in (each.as_it_was, each.swapped):
            every = full_logprobs(files.directory, sequence.token_ids)
            at = range(sequence.prompt_len, len(sequence.token_ids))
            answers.append(np.array([every[place - 1, sequence.token_ids[place]] for place in at]))
        truth.append(np.abs(answers[0] - answers[1]).mean())
    np.testing.assert_allclose(measured.sums[:, 0], truth, atol=1e-3)
    assert measured.value == pytest.approx(np.mean(truth), abs=1e-3)
