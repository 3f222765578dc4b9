"""What a rollout says about its student, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from student_builders import VOCAB, record
from training_jobs import IDENTITY, keyed

from cache.store import TeacherCache
from configs.rollouts import PolicyConfig, RolloutConfig
from student_train.handoff.rollouts import Rollout
from student_train.losses.advantages import policy_terms
from student_train.training.rollout_metrics import collapse_of, rollout_health, rollout_terms

ROWS = [keyed(record(seed, prompt=3, response=response)) for seed, response in ((1, 2), (2, 3), (3, 1))]
BEHAVIOUR = np.array([-1.0, -2.0, -0.5, -1.5, -2.5, -4.0], dtype=np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> TeacherCache:
    cache = TeacherCache.open(tmp_path / "cache", IDENTITY)
    cache.put(ROWS, vocab=VOCAB)
    return cache


@pytest.fixture
def rollout(cache: TeacherCache) -> Rollout:
    """Three rows of 2, 3 and 1 response tokens; the second was sampled twice, and the third is the teacher's own."""
    return Rollout(
        number=4,
        version=3,
        view=cache.view([row.key for row in ROWS], dataset="rollout", k=8),
        samples=np.array([0, 1, 1, 2]),
        drawn_by_teacher=np.array([False, True, False, False, False, True]),
        engine_logprobs=np.array([-1.25, np.nan, -0.5, np.nan, -2.0, np.nan], dtype=np.float32),
        metrics={},
    )


def test_health_is_that_of_the_students_own_tokens(rollout: Rollout) -> None:
    assert rollout_health(rollout, BEHAVIOUR) == {
        "rollout/response_tokens": pytest.approx((2 + 3 + 3) / 3),
        "rollout/sequences": 4.0,
        "rollout/staleness": 1.0,
        "rollout/entropy": pytest.approx((1.0 + 0.5 + 1.5 + 2.5) / 4),
        "rollout/engine_gap": pytest.approx((0.25 + 0.0 + 0.5) / 3),
    }


def test_a_rollout_of_the_teacher_alone_says_nothing_of_the_students_entropy(rollout: Rollout) -> None:
    teachers = replace(rollout, drawn_by_teacher=np.ones(6, dtype=np.bool_))
    assert rollout_health(teachers, BEHAVIOUR) == {
        "rollout/response_tokens": 0.0,
        "rollout/sequences": 4.0,
        "rollout/staleness": 1.0,
    }


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({"rollout/response_tokens": 5.0, "rollout/entropy": 0.3}, None),
        ({"rollout/response_tokens": 4.9, "rollout/entropy": 0.3}, ("rollout/response_tokens", 5.0)),
        ({"rollout/response_tokens": 9.0, "rollout/entropy": 0.1}, ("rollout/entropy", 0.25)),
        ({"rollout/response_tokens": 9.0}, None),
    ],
)
def test_a_collapse_is_a_metric_below_its_least_value(
    metrics: dict[str, float], found: tuple[str, float] | None
) -> None:
    config = RolloutConfig(count=1, least_tokens=5.0, least_entropy=0.25)
    assert collapse_of(metrics, config=config) == found


def test_terms_stand_in_one_row_a_response(rollout: Rollout, cache: TeacherCache) -> None:
    policy = PolicyConfig()
    table = rollout_terms(rollout, BEHAVIOUR, cache=cache, alpha=0.25, policy=policy)
    assert table.mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    # Each row is what it would be alone, from the cache's log-probabilities of its tokens.
    for number, (row, ours) in enumerate(zip(ROWS, ((-1.0, -2.0), (-0.5, -1.5, -2.5), (-4.0,)), strict=True)):
        assert row.target_logprobs is not None
        (alone,) = policy_terms(
            torch.from_numpy(row.target_logprobs.astype(np.float64))[None],
            torch.tensor(ours, dtype=torch.float64)[None],
            torch.ones(1, len(ours), dtype=torch.bool),
            alpha=0.25,
            policy=policy,
        ).rows()
        torch.testing.assert_close(table.rows()[number].advantages, alone.advantages)
        torch.testing.assert_close(table.rows()[number].behaviour, alone.behaviour)
