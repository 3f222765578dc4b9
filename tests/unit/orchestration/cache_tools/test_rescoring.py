"""A live teacher that is the same agrees with its cache up to the encoding; another one does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from local_engines import EOS, IDENTITY, MAX_MODEL_LEN, VOCAB, fake_teacher

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.protocols import Failure
from configs import EngineError
from orchestration.cache_tools.rescoring import CONTROL_ROWS, _cached, score_twice
from orchestration.cluster.engines import TimedAnswers
from teacher_server import FakeTeacher

ROWS, K = 7, 4


class FakePool:
    """Engines in this process; notes the prompts of each batch."""

    def __init__(self, source: FakeTeacher) -> None:
        self.source = source
        self.batches: list[list[tuple[int, ...]]] = []

    def answer(self, requests: Sequence[ScoreRequest], *, k: int) -> TimedAnswers:
        self.batches.append([request.token_ids for request in requests])
        found = dict(self.source.score(requests, k=k))
        return TimedAnswers(tuple(found[at] for at in range(len(requests))), 1.0, "a fake")


@pytest.fixture
def cache(tmp_path: Path) -> TeacherCache:
    requests = [GenerateRequest((3, 4 + at), (EOS,), max_new_tokens=9) for at in range(ROWS)]
    said: Any = [(record, requests[at]) for at, record in fake_teacher().generate(requests, k=K)]
    made = TeacherCache.open(tmp_path / "cache", IDENTITY)
    made.put(said, vocab=VOCAB)
    made.refresh()
    return made


def test_the_same_teacher_says_what_the_cache_keeps(cache: TeacherCache) -> None:
    pool: Any = FakePool(fake_teacher())
    cached = _cached(cache, rows=ROWS, seed=0)
    found = score_twice(cached, pool=pool, identity="i", seed=0)
    assert (found.identity, found.rows, found.k) == ("i", ROWS, K)
    assert found.tokens == sum(record.response_len for record in cached)
    assert 0 <= found.kl < 1e-3 and found.top1_agreement == 1.0
    assert (found.control_kl, found.control_top1_agreement) == (0.0, 1.0)


def test_the_control_asks_for_the_same_rows_in_other_batches(cache: TeacherCache) -> None:
    pool: Any = FakePool(fake_teacher())
    score_twice(_cached(cache, rows=ROWS, seed=0), pool=pool, identity="i", seed=0)
    whole, *parts = pool.batches
    assert len(whole) == ROWS and all(len(part) <= CONTROL_ROWS for part in parts)
    again = [prompt for part in parts for prompt in part]
    assert sorted(again) == sorted(whole) and again != whole


def test_another_teacher_is_far_from_the_cache_and_near_to_itself(cache: TeacherCache) -> None:
    other = FakeTeacher(IDENTITY, vocab=VOCAB, seed=1, eos_id=EOS, max_model_len=MAX_MODEL_LEN)
    pool: Any = FakePool(other)
    found = score_twice(_cached(cache, rows=ROWS, seed=0), pool=pool, identity="i", seed=0)
    assert found.kl > 0.03 and found.top1_agreement < 0.5
    assert found.control_kl == 0.0


def test_a_sequence_that_it_cannot_score_any_more_is_an_error(cache: TeacherCache) -> None:
    class Refusing(FakePool):
        def answer(self, requests: Sequence[ScoreRequest], *, k: int) -> TimedAnswers:
            return TimedAnswers(tuple(Failure("too long") for _ in requests), 1.0, "a fake")

    pool: Any = Refusing(fake_teacher())
    with pytest.raises(EngineError, match=r"^the teacher could not score [0-9a-f]{12} again: too long$"):
        score_twice(_cached(cache, rows=2, seed=0), pool=pool, identity="i", seed=0)


def test_only_rows_with_log_probabilities_are_taken(cache: TeacherCache) -> None:
    request = GenerateRequest((9, 9), (EOS,), max_new_tokens=9)
    ((_, record),) = fake_teacher().generate([request], k=0)
    assert isinstance(record, TeacherRecord)
    cache.put([(record, request)], vocab=VOCAB)
    cache.refresh()
    found = _cached(cache, rows=99, seed=0)
    assert len(found) == ROWS and all(each.topk_ids is not None for each in found)
    assert [each.key for each in _cached(cache, rows=3, seed=5)] == [
        each.key for each in _cached(cache, rows=3, seed=5)
    ]
