"""Answers of servers, word for word as they send them, and the same with something wrong."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from teacher_server.remote.choices import LieError, read_echo, read_prompt_logprobs, read_written, topk_of
from teacher_server.remote.tokens import RemoteTokens

TOKENS = RemoteTokens([None, b"the", b" cat", b" dog", b" sat", b"\xc3"], {0: "<eos>"}, encode=lambda _: [])

VLLM = {
    "index": 0,
    "text": "the cat",
    "finish_reason": "stop",
    "token_ids": [1, 2, 0],
    "logprobs": {
        "tokens": ["token_id:1", "token_id:2", "token_id:0"],
        "token_logprobs": [-0.1, -1.2, -0.5],
        "top_logprobs": [
            {"token_id:1": -0.1, "token_id:4": -3.0},
            {"token_id:2": -1.2, "token_id:3": -0.6, "token_id:5": -2.5},
            {"token_id:0": -0.5, "token_id:3": -9999.0},
        ],
    },
}
CHAT = {
    "index": 0,
    "message": {"role": "assistant", "content": "the cat"},
    "finish_reason": "length",
    "logprobs": {
        "content": [
            {
                "token": "the",
                "logprob": -0.1,
                "bytes": [116, 104, 101],
                "top_logprobs": [
                    {"token": "the", "logprob": -0.1, "bytes": [116, 104, 101]},
                    {"token": "\ufffd", "logprob": -2.0, "bytes": [195]},
                ],
            },
            {
                "token": " cat",
                "logprob": -1.2,
                "bytes": [32, 99, 97, 116],
                "top_logprobs": [
                    {"token": " dog", "logprob": -0.6, "bytes": [32, 100, 111, 103]},
                    {"token": " cat", "logprob": -1.2, "bytes": [32, 99, 97, 116]},
                ],
            },
        ]
    },
}
PROMPT_LOGPROBS = [
    None,
    {"2": {"logprob": -4.0, "rank": 17, "decoded_token": " cat"}, "3": {"logprob": -0.6, "rank": 1, "decoded_token": "x"}},
    {"4": {"logprob": -0.2, "rank": 1, "decoded_token": " sat"}},
]  # fmt: skip


def test_ids_of_a_completion() -> None:
    written = read_written(VLLM, TOKENS)
    assert (written.token_ids, written.finish, written.text) == ((1, 2, 0), "stop", "the cat")
    assert written.positions is not None
    rows = topk_of(written.positions, (1, 2, 0), k=2)
    assert rows is not None
    np.testing.assert_array_equal(rows.topk_ids, [[1, 4], [3, 2], [0, 3]])
    np.testing.assert_allclose(rows.topk_logprobs, [[-0.1, -3.0], [-0.6, -1.2], [-0.5, -math.inf]], rtol=1e-6)
    np.testing.assert_allclose(rows.target_logprobs, [-0.1, -1.2, -0.5], rtol=1e-6)
    assert rows.target_ranks.tolist() == [1, 2, 1]


def test_bytes_of_a_conversation() -> None:
    written = read_written(CHAT, TOKENS)
    assert written.token_ids == (1, 2) and written.positions is not None
    rows = topk_of(written.positions, (1, 2), k=2)
    assert rows is not None and rows.topk_ids.tolist() == [[1, 5], [3, 2]] and rows.target_ranks.tolist() == [1, 2]


def test_a_token_beyond_the_best_counts_as_the_next() -> None:
    choice = copy.deepcopy(CHAT)
    choice["logprobs"]["content"][1]["logprob"] = -1.9  # type: ignore[index]
    choice["logprobs"]["content"][1]["top_logprobs"] = [  # type: ignore[index]
        {"token": " dog", "logprob": -0.6, "bytes": None},
        {"token": " sat", "logprob": -1.2, "bytes": None},
    ]
    positions = read_written(choice, TOKENS).positions
    rows = topk_of(positions or (), (1, 2), k=2)
    assert rows is not None and rows.target_ranks.tolist() == [1, 3]


def test_ranks_of_a_prompt_are_the_servers() -> None:
    positions = read_prompt_logprobs(PROMPT_LOGPROBS, (1, 2, 4), TOKENS)
    rows = topk_of(positions, (2, 4), k=1)
    assert rows is not None
    assert rows.topk_ids.tolist() == [[3], [4]] and rows.target_ranks.tolist() == [17, 1]
    assert topk_of(positions, (2, 4), k=2) is None


def test_an_echo_has_no_row_for_its_first_token() -> None:
    said = copy.deepcopy(VLLM)
    said["logprobs"]["token_logprobs"][0] = None  # type: ignore[index]
    said["logprobs"]["top_logprobs"][0] = None  # type: ignore[index]
    assert [each.token for each in read_echo(said, TOKENS)] == [2, 0]


def test_names_that_may_mean_several_leave_no_rows() -> None:
    choice = copy.deepcopy(CHAT)
    choice["logprobs"]["content"][0]["top_logprobs"][1]["bytes"] = None  # type: ignore[index]
    written = read_written(choice, TOKENS)
    assert written.token_ids == (1, 2) and topk_of(written.positions or (), (1, 2), k=2) is None


def broken(path: list[Any], value: Any) -> dict[str, Any]:
    """vLLM's answer with one value changed."""
    answer: Any = copy.deepcopy(VLLM)
    at = answer
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (broken(["text"], None), "an answer without text"),
        (broken(["token_ids"], [1, 3, 0]), "a row of token 2 stands where token 3 is"),
        (broken(["token_ids"], [1, 2]), "3 rows of log-probabilities for 2 tokens"),
        (broken(["token_ids"], [1, 2, 99]), "99 is no token id of a vocabulary of 6"),
        (broken(["token_ids"], [1, 2, True]), "True is no token id"),
        (broken(["logprobs", "tokens"], None), "without a token for each"),
        (broken(["logprobs", "top_logprobs"], [{}]), "1 tables of the most likely tokens for 3"),
        (broken(["logprobs", "token_logprobs", 1], 0.5), "0.5 is no log-probability"),
        (broken(["logprobs", "token_logprobs", 1], math.nan), "nan is no log-probability"),
        (broken(["logprobs", "token_logprobs", 1], "x"), "'x' is no log-probability"),
        (broken(["logprobs", "token_logprobs", 1], -0.7), "-0.7000 and -1.2000 among the most likely"),
        (broken(["logprobs", "top_logprobs", 1], {"token_id:3": -2.6, "token_id:5": -3.5}), "is not among the most"),
    ],
)
def test_what_contradicts_itself_is_a_lie(choice: dict[str, Any], said: str) -> None:
    with pytest.raises(LieError, match=said):
        written = read_written(choice, TOKENS)
        topk_of(written.positions or (), written.token_ids or (), k=2)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (PROMPT_LOGPROBS[:2], "2 positions of log-probabilities for a prompt of 3"),
        (None, "no positions of log-probabilities"),
        ([None, PROMPT_LOGPROBS[2], PROMPT_LOGPROBS[1]], "no log-probability of token 2"),
    ],
)
def test_rows_of_another_prompt_are_a_lie(rows: Any, said: str) -> None:
    with pytest.raises(LieError, match=said):
        read_prompt_logprobs(rows, (1, 2, 4), TOKENS)
