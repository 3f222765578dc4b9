"""The fake teacher: the conformance suite, and what only it promises."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import *  # noqa: F403
from conformance import PROMPTS, Subject, greedy, present, records, tokens

from cache.identity import TeacherIdentity
from cache.records import GenerateRequest, ScoreRequest
from teacher_server import FakeTeacher

VOCAB = 151


EOS = 2


IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)


def fake(*, seed: int = 0, vocab: int = VOCAB) -> FakeTeacher:
    return FakeTeacher(IDENTITY, vocab=vocab, seed=seed, eos_id=EOS, max_model_len=128)


@pytest.fixture
def subject() -> Subject:
    return Subject(source=fake(), vocab=VOCAB, max_sequences=1, max_model_len=128, tolerance=0.0)


def test_two_fakes_of_one_seed_agree_bit_for_bit() -> None:
    requests = [greedy(prompt) for prompt in PROMPTS]
    for one, other in zip(
        records(fake().generate(requests, k=8)), records(fake().generate(requests, k=8)), strict=True
    ):
        assert one.key == other.key
        np.testing.assert_array_equal(present(one.topk_logprobs), present(other.topk_logprobs))


def test_another_seed_believes_something_else() -> None:
    asked = [ScoreRequest((1, 5, 6, 7), 1)]
    [one], [other] = records(fake().score(asked, k=4)), records(fake(seed=1).score(asked, k=4))
    assert not np.array_equal(present(one.target_logprobs), present(other.target_logprobs))


def test_the_next_token_depends_on_the_last_three_alone() -> None:
    asked = [ScoreRequest((1, 9, 5, 6, 7, 8), 5), ScoreRequest((5, 6, 7, 8), 3), ScoreRequest((5, 9, 7, 8), 3)]
    [one, same, different] = records(fake().score(asked, k=4))
    np.testing.assert_array_equal(present(one.topk_logprobs), present(same.topk_logprobs))
    assert not np.array_equal(present(one.topk_logprobs), present(different.topk_logprobs))


def test_answers_end_after_some_tens_of_tokens() -> None:
    requests = [GenerateRequest((1, each), (EOS,), 100, temperature=1.0) for each in range(3, 103)]
    lengths = [record.response_len for record in records(fake().generate(requests, k=0))]
    assert 5 < float(np.median(lengths)) < 60


def test_a_real_vocabulary_fits_in_little_memory() -> None:
    teacher = fake(vocab=49152)
    [record] = records(teacher.generate([greedy((1, 5), new=40)], k=64))
    assert record.k == 64
    assert teacher._logprobs.cache_info().maxsize * 4 * 49152 <= 64 << 20  # type: ignore[attr-defined]
    assert tokens(record)[:2] == (1, 5)
