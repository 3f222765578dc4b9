"""Filters on hand-made records: what stays, in which order, and what is counted for which reason."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from cache import TeacherRecord
from configs.stages import FilterConfig
from orchestration.pipeline.filters import apply_filters

WORDS = {1: "the", 2: "cat", 3: "sat", 4: "The", 5: " cat ", 6: "dog", 7: "ran"}


def text(ids: tuple[int, ...]) -> str:
    return " ".join(WORDS[token] for token in ids)


def row(prompt: list[int], answer: list[int], *, finish: str = "stop") -> TeacherRecord:
    tokens = np.array([*prompt, *answer], dtype=np.int32)
    return TeacherRecord(hashlib.sha256(tokens.tobytes()).digest(), tokens, len(prompt), finish, "decode")


ROWS = [
    row([10, 11], [1, 2, 3]),
    row([10, 11], [4, 5, 3]),  # reads like the first
    row([10, 12], [4, 5, 3]),  # the same words, another prompt
    row([10, 13], [6, 7], finish="length"),
    row([10, 14], [6]),
]
GOLD = {(10, 11): "the cat sat", (10, 12): "the cat sat", (10, 13): "the dog ran"}


@pytest.mark.parametrize(
    ("filters", "kept", "left_out"),
    [
        ({}, [0, 1, 2, 3, 4], {}),
        ({"finish": "stop"}, [0, 1, 2, 4], {"broken off": 1}),
        ({"min_tokens": 2, "max_tokens": 2}, [3], {"longer than 2 tokens": 3, "shorter than 2 tokens": 1}),
        ({"drop_duplicates": True}, [0, 2, 3, 4], {"reading like another answer to the same prompt": 1}),
        ({"min_rouge_l": 90.0}, [0, 1, 2], {"below Rouge-L 90": 2}),
        ({"min_rouge_l": 70.0}, [0, 1, 2, 3], {"below Rouge-L 70": 1}),
        ({"finish": "stop", "min_rouge_l": 90.0}, [0, 1, 2], {"broken off": 1, "below Rouge-L 90": 1}),
    ],
)
def test_what_stays_and_what_is_counted(filters: dict[str, object], kept: list[int], left_out: dict[str, int]) -> None:
    result = apply_filters(ROWS, filters=FilterConfig.model_validate(filters), text=text, gold=GOLD)
    assert result.keys == tuple(ROWS[at].key for at in kept)
    assert result.left_out == left_out
    assert len(result.keys) + sum(result.left_out.values()) == len(ROWS)


def test_the_result_says_what_it_did() -> None:
    result = apply_filters(ROWS, filters=FilterConfig(finish="stop"), text=text, gold={})
    assert str(result) == "4 sequences learned; left out: 1 broken off"
