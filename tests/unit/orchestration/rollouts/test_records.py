"""What a worker group is told of sampled sequences, which prompts come next, and former rollouts that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_engines import IDENTITY, VOCAB, fake_teacher

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from configs import ConfigError
from configs.rollouts import RolloutConfig
from orchestration.pipeline.rollout_maker import former_rollouts
from orchestration.rollouts.mixture import Tally
from orchestration.rollouts.records import chosen, described, held_out_reverse_kl, sampling_metrics
from orchestration.rollouts.sequence import Sampled
from student_train.handoff.rollouts import Rollout, RolloutExchange
from student_train.training.selection import OWN_ANSWERS, OWN_ANSWERS_STDERR

K = 4


def scored(*response: int, prompt: tuple[int, ...] = (5, 6, 7), policy: int = 1) -> TeacherRecord:
    [(_, record)] = fake_teacher().score([ScoreRequest((*prompt, *response), len(prompt))], k=K)
    assert isinstance(record, TeacherRecord)
    return replace(record, policy_version=policy)


def sampled(record: TeacherRecord, *, by_teacher: tuple[int, ...] = ()) -> Sampled:
    """A sequence whose tokens at these places the teacher drew; the student gives its own -1, -2, ..."""
    sources = np.isin(np.arange(record.response_len), by_teacher)
    logprobs = -np.arange(1, record.response_len + 1, dtype=np.float32)
    return Sampled(record, sources, np.where(sources, np.float32(np.nan), logprobs))


@settings(max_examples=30)
@given(total=st.integers(1, 12), count=st.integers(1, 30), rounds=st.integers(1, 4), seed=st.integers(0, 3))
def test_every_prompt_has_its_turn_before_any_comes_twice(total: int, count: int, rounds: int, seed: int) -> None:
    rollouts = -(-total * rounds // count)
    asked = np.concatenate([chosen(total, number=n, count=count, seed=seed) for n in range(rollouts)])
    assert len(asked) == rollouts * count
    for each in asked[: total * rounds].reshape(rounds, total):
        assert sorted(each) == list(range(total))


def test_rounds_seeds_and_sources_have_orders_of_their_own() -> None:
    orders = [chosen(50, number=0, count=50, seed=1), chosen(50, number=1, count=50, seed=1)]
    orders += [chosen(50, number=0, count=50, seed=2), chosen(50, number=0, count=50, seed=1, of="teacher")]
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], chosen(50, number=0, count=50, seed=1))


def test_equal_sequences_share_a_row_and_the_teachers_own_say_nothing_of_the_student(tmp_path: Path) -> None:
    cache = TeacherCache.open(tmp_path, IDENTITY)
    request = GenerateRequest((9, 9), stop_ids=(2,), max_new_tokens=3)
    [(_, own)] = fake_teacher().generate([request], k=K)
    assert isinstance(own, TeacherRecord)
    mixed, plain = scored(11, 12, 13), scored(21, 22)
    cache.put([(own, request)], vocab=VOCAB)
    cache.put([replace(each, finish="given") for each in (mixed, plain)], vocab=VOCAB, rollout="test")
    samples = [sampled(mixed, by_teacher=(1,)), sampled(plain), sampled(mixed, by_teacher=(1,))]
    keys = [*(each.record.key for each in samples), own.key]
    view = cache.view(keys, dataset="rollout", k=K)
    found = described(keys, view=view, sampled=samples, number=3, version=1, metrics={"rollout/rounds": 2.0})
    assert (found.number, found.version, found.metrics) == (3, 1, {"rollout/rounds": 2.0})
    assert len(view) == 3
    assert [view.keys[row].tobytes() for row in found.samples] == keys
    length = own.response_len
    assert found.drawn_by_teacher.tolist() == [False, True, False, False, False] + [True] * length
    np.testing.assert_array_equal(found.engine_logprobs, np.array([-1, np.nan, -3, -1, -2] + [np.nan] * length))


def test_what_sampling_took_is_told_by_tracking_names() -> None:
    tally = Tally(
        rounds=5, student_tokens=40, teacher_tokens=10, scored_tokens=90, scored_sequences=4, scorings=5,
        recomputed_tokens=7, sampling_seconds=2.0, scoring_seconds=0.5,
    )  # fmt: skip
    told = sampling_metrics(tally, written=50, sync_seconds=0.25)
    assert told == {
        "rollout/tokens_per_s": 25.0,
        "rollout/scoring_passes": 1.25,
        "rollout/rounds": 5.0,
        "rollout/student_drawn_tokens": 40.0,
        "rollout/teacher_drawn_tokens": 10.0,
        "rollout/scored_tokens": 90.0,
        "rollout/recomputed_tokens": 7.0,
        "rollout/sampling_s": 2.0,
        "rollout/scoring_s": 0.5,
        "rollout/sync_s": 0.25,
    }
    assert sampling_metrics(Tally(), written=0, sync_seconds=0.0)["rollout/tokens_per_s"] == 0.0


def test_the_held_out_divergence_is_student_minus_teacher() -> None:
    answers = [sampled(scored(11, 12, 13)), sampled(scored(21, 22), by_teacher=())]
    sums = []
    for each in answers:
        assert each.record.target_logprobs is not None
        sums.append(float(each.student_logprobs.sum(dtype=np.float64) - each.record.target_logprobs.sum()))
    told = held_out_reverse_kl(answers)
    assert told["rollout/dev_reverse_kl"] == pytest.approx(sum(sums) / 5)
    assert told["rollout/dev_sequence_reverse_kl"] == pytest.approx(sum(sums) / 2)
    assert told["rollout/dev_response_tokens"] == 2.5
    assert {OWN_ANSWERS, OWN_ANSWERS_STDERR} < told.keys(), "what the verdict on a stage reads"
    assert held_out_reverse_kl([]) == {}


@pytest.fixture()
def former(tmp_path: Path) -> RolloutConfig:
    """One rollout that another training left, its scores in the cache below `tmp_path`."""
    record, exchange = scored(11, 12, 13), RolloutExchange(tmp_path / "former")
    cache = TeacherCache.open(tmp_path / "cache", IDENTITY)
    cache.put([replace(record, finish="given")], vocab=VOCAB, rollout="test")
    view = cache.view([record.key], dataset="rollout", k=K)
    samples = [sampled(record)]
    exchange.commit(
        described([record.key], view=view, sampled=samples, number=0, version=0, metrics={"rollout/rounds": 1.0})
    )
    exchange.keep_behaviour(0, np.array([-0.5, -1.5, -2.5], dtype=np.float32))
    return RolloutConfig(count=1, prompts=1, minibatches=1, replay_from=tmp_path / "former")


def replay(config: RolloutConfig, *, root: Path, weights: str = "a") -> list[Rollout]:
    identity = replace(IDENTITY, weights_sha256=weights * 64)
    lesson: Any = SimpleNamespace(teacher=SimpleNamespace(identity=identity), cache=TeacherCache.open(root, identity))
    return former_rollouts(config, lesson=lesson)


def test_former_rollouts_come_with_the_behaviour_of_those_who_wrote_them(former: RolloutConfig, tmp_path: Path) -> None:
    (found,) = replay(former, root=tmp_path / "cache")
    assert found.behaviour_logprobs is not None
    assert found.behaviour_logprobs.tolist() == [-0.5, -1.5, -2.5]
    assert found.engine_logprobs.tolist() == [-1.0, -2.0, -3.0]
    # What sampling took then was not spent again.
    assert found.metrics == {}
    assert replay(former.model_copy(update={"replay_from": None}), root=tmp_path / "cache") == []


def test_former_rollouts_that_cannot_be_learned_from_are_refused(former: RolloutConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds 1 of the rollout\.count=2 rollouts"):
        replay(former.model_copy(update={"count": 2}), root=tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"scored by the teacher \w+, this stage learns from") as refusal:
        replay(former, root=tmp_path / "cache", weights="c")
    assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match="have left the cache since"):
        replay(former, root=tmp_path / "another")
