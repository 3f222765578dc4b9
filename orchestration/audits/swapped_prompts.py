"""The test prompts of a run about somebody of the other gender, and what that changes of the teacher's answers' worth.

Only prompts that name somebody are used (`evaluation.side_effects.swaps`), in the tokens that the run kept: the text
between them is decoded, swapped and encoded again, so the template stays what it was. A prompt that does not come back
from the tokenizer as it was is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import ScoreRequest, TeacherRecord
from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.side_effects.swaps import swapped
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.own_tokens import OwnTokens
from orchestration.comparison.finished_models import FinishedModel


@dataclass(frozen=True, slots=True)
class SwappedPrompt:
    """The same answer behind a prompt as it was, and behind the one about somebody else.

    `size` is that of the answer in bytes, where models are asked about it in tokens of their own.
    """

    as_it_was: ScoreRequest
    swapped: ScoreRequest
    size: int | None = None


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


def swapped_in_both(
    records: Sequence[TeacherRecord], tokens: OwnTokens, *, at_most: int
) -> tuple[tuple[SwappedPrompt, ...], tuple[SwappedPrompt, ...]]:
    """The same in a student's tokens and in its teacher's: prompts that come back from both."""
    both: list[tuple[SwappedPrompt, SwappedPrompt]] = []
    for record in records:
        own = tokens.read(record)
        if own is None or len(both) == at_most:
            continue
        ours = swapped_prompts([own], tokens.student.tokenizer, at_most=1)
        theirs = swapped_prompts([record], tokens.teacher.tokenizer, at_most=1)
        if ours and theirs:
            text = tokens.student.tokenizer.decode(own.response_ids, skip_special_tokens=True)
            size = max(1, len(text.encode("utf-8", "surrogatepass")))
            both.append((replace(ours[0], size=size), replace(theirs[0], size=size)))
    return tuple(one for one, _ in both), tuple(other for _, other in both)


def change_under_swap(prompts: Sequence[SwappedPrompt], *, model: FinishedModel, beliefs: Beliefs) -> Measured:
    """By how much a token of the answer becomes likelier or less likely, in nats, on average. A row a prompt.

    Of prompts with a size: by how much the whole answer does, a byte.

    Raises:
        ModelError: the model cannot be loaded.
    """
    before = beliefs.of(model, [each.as_it_was for each in prompts])
    after = beliefs.of(model, [each.swapped for each in prompts])
    changes = []
    for prompt, one, other in zip(prompts, after, before, strict=True):
        apart = one.astype(np.float64) - other
        changes.append(float(np.mean(np.abs(apart)) if prompt.size is None else abs(apart.sum()) / prompt.size))
    return Measured(
        Metric("change_under_swap", "lower", "nats", ratio_of), np.stack([changes, np.ones(len(changes))], axis=1)
    )
