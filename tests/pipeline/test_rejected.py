"""A request that the teacher could not answer is set aside under the row that it came from."""

from __future__ import annotations

from cache import GenerateRequest, ScoreRequest
from orchestration.fill import FillResult
from orchestration.prompts import Prompt, PromptSet, Rejected
from orchestration.stage_fill import rejected_of


def test_failures_name_split_row_and_text() -> None:
    prompts = PromptSet({"train": (Prompt(4, "one", (1, 2)),), "test": (Prompt(7, "two", (3,)),)}, ())
    result = FillResult()
    result.failed[GenerateRequest(prompt_ids=(1, 2), stop_ids=(0,), max_new_tokens=5)] = "too long"
    result.failed[ScoreRequest(token_ids=(3, 9, 9), prompt_len=1)] = "unknown id"
    assert rejected_of(prompts, result).rejected == (
        Rejected("train", 4, "too long", "one"),
        Rejected("test", 7, "unknown id", "two"),
    )
