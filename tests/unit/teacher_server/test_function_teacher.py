"""A teacher that is a function: the conformance suite, and that it says exactly what the function says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from conformance import *  # noqa: F403
from conformance import Subject, greedy, present, records, tokens

from cache.identity import TeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest
from teacher_server.function_teacher import FunctionTeacher
from teacher_server.requests import Asked

VOCAB = 151


IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)


def believed(ids: Sequence[int]) -> np.ndarray:
    """Log-probabilities that depend on the last two tokens, and on where they stand not at all."""
    rng = np.random.default_rng([*ids[-2:]])
    logits = rng.normal(scale=2.0, size=VOCAB)
    return (logits - np.log(np.exp(logits).sum())).astype(np.float32)


def teacher(*, vocab: int = VOCAB) -> FunctionTeacher:
    return FunctionTeacher(
        IDENTITY, vocab=vocab, next_logprobs=lambda ids: narrowed(ids, vocab=vocab), max_model_len=128
    )


def narrowed(ids: Sequence[int], *, vocab: int) -> np.ndarray:
    part = believed(ids)[:vocab].astype(np.float64)
    return (part - np.log(np.exp(part).sum())).astype(np.float32)


@pytest.fixture
def subject() -> Subject:
    return Subject(source=teacher(), vocab=VOCAB, max_sequences=1, max_model_len=128, tolerance=0.0)


def test_rows_are_what_the_function_says() -> None:
    [record] = records(teacher().score([ScoreRequest((1, 5, 6, 7), 2)], k=4))
    for row, (end, target) in enumerate([(2, 6), (3, 7)]):
        said = narrowed((1, 5, 6, 7)[:end], vocab=VOCAB)
        best = np.argsort(-said, kind="stable")[:4]
        assert present(record.topk_ids)[row].tolist() == best.tolist()
        assert present(record.topk_logprobs)[row].tolist() == said[best].tolist()
        assert present(record.target_logprobs)[row] == said[target]
        assert present(record.target_ranks)[row] == 1 + (said > said[target]).sum()


def test_it_writes_the_best_token_until_a_stop() -> None:
    first = int(narrowed((1, 5), vocab=VOCAB).argmax())
    [written] = records(teacher().generate([greedy((1, 5), new=3)], k=0))
    assert tokens(written)[2] == first and written.finish == "length" and written.response_len == 3
    [stopped] = records(teacher().generate([greedy((1, 5), new=3, stop=(first,))], k=0))
    assert tokens(stopped) == (1, 5, first) and stopped.finish == "stop"


def test_both_kinds_of_requests_are_answered_in_order() -> None:
    asked = [Asked(greedy((1, 5), new=2), 0), None, Asked(ScoreRequest((1, 5, 6), 2), 3)]
    steps = list(teacher().work(asked))
    assert [[position for position, _ in step] for step in steps] == [[0], [1]]


def test_drawn_tokens_follow_the_scored_distribution() -> None:
    draws = 4000
    source = teacher(vocab=16)
    asked = (GenerateRequest((1, 5), (), 1, temperature=1.0, replicate=each) for each in range(draws))
    drawn = np.bincount([int(record.response_ids[0]) for record in records(source.generate(asked, k=0))], minlength=16)
    [whole] = records(source.score([ScoreRequest((1, 5, 3), 2)], k=16))
    probs = np.exp(present(whole.topk_logprobs)[0])
    expected = draws * probs
    chi_square = float((((drawn[present(whole.topk_ids)[0]] - expected) ** 2) / expected).sum())
    assert chi_square < 45  # 15 degrees of freedom: exceeded once in ten thousand


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    source = teacher(vocab=16)
    [whole] = records(source.score([ScoreRequest((1, 5, 3), 2)], k=16))
    probs = np.exp(present(whole.topk_logprobs)[0].astype(np.float64))
    top_p = float(probs[0] + probs[1] / 2)
    asked = (GenerateRequest((1, 5), (), 1, temperature=1.0, top_p=top_p, replicate=each) for each in range(200))
    drawn = {int(record.response_ids[0]) for record in records(source.generate(asked, k=0))}
    assert drawn == set(present(whole.topk_ids)[0, :2].tolist())


def test_penalties_are_refused() -> None:
    asked = [
        GenerateRequest((1, 5), (), 4, repetition_penalty=1.2),
        GenerateRequest((1, 5), (), 4, presence_penalty=1.0),
    ]
    assert all(isinstance(outcome, Failure) for _, outcome in teacher().generate(asked, k=0))
