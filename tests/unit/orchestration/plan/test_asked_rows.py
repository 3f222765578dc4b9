"""Requests that are made of prompts when they are looked at: which they are, and what a plan holds of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest

from cache import GenerateRequest, rows
from orchestration.inputs.prompts import Prompt, PromptTable
from orchestration.plan.asked_rows import AskedRows
from orchestration.plan.requests import NothingHeld, SequenceSet, plan_fill


def asking(prompt: Prompt, replicate: int) -> GenerateRequest:
    return GenerateRequest(prompt.prompt_ids, stop_ids=(2,), max_new_tokens=4, replicate=replicate)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", [tuple, PromptTable])
def test_the_samples_of_a_prompt_stand_side_by_side(samples: int, kind: type[Sequence[Prompt]]) -> None:
    prompts = [Prompt(at, str(at), (3, at)) for at in range(4)]
    made = AskedRows(kind(prompts), asking, samples=samples)  # type: ignore[call-arg]
    expected = [asking(prompt, n) for prompt in prompts for n in range(samples)]
    assert list(made) == expected and made == expected
    assert [made[at] for at in range(len(expected))] == expected
    for start in range(len(expected)):
        assert list(made[start : start + 4]) == expected[start : start + 4]


def test_a_plan_holds_a_few_bytes_of_a_row_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of prompts and of misses: 8 bytes each, of which the arrays may have as many again in reserve."""
    monkeypatch.setattr(rows, "HELD_BYTES", 2**12)
    count = 5_000
    tracemalloc.start()
    try:
        table = PromptTable(Prompt(at, "word " * 20, (5,) * 60, (6,) * 60) for at in range(count))
        asked = SequenceSet("teacher", "train", AskedRows(table, asking), k=4)
        plan = plan_fill([asked], cache=NothingHeld())
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (plan.misses, plan.prompt_tokens) == (count, 60 * count)
    assert held < 32 * count
