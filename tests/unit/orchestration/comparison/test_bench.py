"""What the final comparison holds against what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cache import TeacherRecord
from cache.protocols import Failure
from orchestration.comparison import bench as evaluate
from orchestration.inputs.random_models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def record(answer: str) -> TeacherRecord:
    tokens = np.array([7, *TOKENIZER.encode(answer)], dtype=np.int32)
    return TeacherRecord(b"", tokens, 1, "stop", "decode")


def bench(*references: str, compared_tokens: int) -> evaluate.TestBench:
    held = [record(text) for text in references]
    cache: Any = SimpleNamespace(iter_blocks=lambda view, pieces: iter([held]))
    view: Any = [None] * len(held)
    files: Any = SimpleNamespace(tokenizer=TOKENIZER)
    return evaluate.TestBench(cache, view, (), files, 4, compared_tokens)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        # Eleven bytes: what either says beyond them, the other was not allowed to say.
        ("one two six", "one two six and four more words", 100.0),
        ("one two six and four more words", "one two six", 100.0),
        ("one two", "one two six and four more words", 80.0),
        ("один д", "один да нет", 100.0),
    ],
)
def test_answers_are_compared_as_far_as_both_were_allowed_to_go(answer: str, reference: str, expected: float) -> None:
    cut = bench(reference, compared_tokens=11)
    assert cut.rouge_l([record(answer)]) == pytest.approx(expected)


def test_a_failed_answer_counts_as_an_empty_one() -> None:
    assert bench("one", "two", compared_tokens=9).rouge_l([record("one"), Failure("refused")]) == pytest.approx(50.0)
