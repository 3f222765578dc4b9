"""The test prompts of a run about somebody of the other gender, and what that changes of the teacher's answers' worth.

Only prompts that name somebody are used (`evaluation.side_effects.swaps`), in the tokens that the run kept: the text
between them is decoded, swapped and encoded again, so the template stays what it was. A prompt that does not come back
from the tokenizer as it was is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import ScoreRequest, TeacherRecord
from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.side_effects.swaps import swapped
from orchestration.audits.beliefs import Beliefs
from orchestration.comparison.finished_models import FinishedModel


@dataclass(frozen=True, slots=True)
class SwappedPrompt:
    """The same answer behind a prompt as it was, and behind the one about somebody else."""

    as_it_was: ScoreRequest
    swapped: ScoreRequest


def swapped_prompts(
    records: Sequence[TeacherRecord], tokenizer: PreTrainedTokenizerBase, *, at_most: int
) -> tuple[SwappedPrompt, ...]:
    """Those of the records' prompts that name somebody, `at_most` so many."""
    found: list[SwappedPrompt] = []
    for record in records:
        prompt = record.token_ids[: record.prompt_len].tolist()
        text = tokenizer.decode(prompt, skip_special_tokens=False)
        other = swapped(text)
        if other is None or len(found) == at_most or record.response_len == 0:
            continue
        if tokenizer.encode(text, add_special_tokens=False) != prompt:
            continue
        ids, answer = tokenizer.encode(other, add_special_tokens=False), record.response_ids.tolist()
        found.append(
            SwappedPrompt(ScoreRequest((*prompt, *answer), len(prompt)), ScoreRequest((*ids, *answer), len(ids)))
        )
    return tuple(found)


def change_under_swap(prompts: Sequence[SwappedPrompt], *, model: FinishedModel, beliefs: Beliefs) -> Measured:
    """By how much a token of the answer becomes likelier or less likely, in nats, on average. A row a prompt.

    Raises:
        ModelError: the model cannot be loaded.
    """
    before = beliefs.of(model, [each.as_it_was for each in prompts])
    after = beliefs.of(model, [each.swapped for each in prompts])
    changes = [float(np.mean(np.abs(a.astype(np.float64) - b))) for a, b in zip(after, before, strict=True)]
    return Measured(
        Metric("change_under_swap", "lower", "nats", ratio_of), np.stack([changes, np.ones(len(changes))], axis=1)
    )
