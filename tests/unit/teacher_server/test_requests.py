"""Requests as an engine takes them."""

from __future__ import annotations

from cache.records import GenerateRequest, ScoreRequest
from teacher_server.requests import generate_arguments, most_tokens, score_arguments


def test_greedy_requests_carry_no_seed_and_no_cuts() -> None:
    found = generate_arguments(GenerateRequest((1,), (2, 7), 5, top_p=0.5, top_k=3, min_p=0.1), seed=9, logprobs=0)
    assert (found["temperature"], found["seed"], found["top_p"], found["top_k"]) == (0.0, None, 1.0, 0)
    assert (found["stop_token_ids"], found["ignore_eos"], found["logprobs"]) == ([2, 7], True, None)


def test_sampled_requests_carry_their_own_seed() -> None:
    request = GenerateRequest((1,), (), 5, temperature=0.7, top_p=0.5, top_k=3)
    found = generate_arguments(request, seed=9, logprobs=64)
    assert (found["temperature"], found["seed"], found["top_p"], found["top_k"]) == (0.7, 9, 0.5, 3)
    assert found["logprobs"] == 64


def test_scoring_asks_for_prompt_rows() -> None:
    assert score_arguments(logprobs=8)["prompt_logprobs"] == 8


def test_the_most_that_a_request_takes() -> None:
    assert most_tokens(GenerateRequest((1, 5), (2,), 30)) == 32 and most_tokens(ScoreRequest((1, 2, 3), 1)) == 3
