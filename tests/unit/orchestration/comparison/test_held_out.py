"""Models at the teacher's own answers: the live teacher against its cache, and what others found of students."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from belief_builders import random_beliefs
from bench_builders import BenchPool, K, MutePool, bench_candidate, bench_teacher, real_bench
from results_builders import model_results

from cache import ScoreRequest, TeacherRecord
from configs import EngineError
from evaluation.closeness import closeness_of, measured
from orchestration.comparison.held_out import HeldOut, shared_beliefs
from orchestration.outputs.artifacts import Artifacts

TEACHER = bench_candidate("teacher", "teacher")
BLANK = model_results("teacher", closeness=None, answers=())


@pytest.fixture
def held_out(tmp_path: Path) -> HeldOut:
    return HeldOut(real_bench(tmp_path), Artifacts(tmp_path / "runs", say=pytest.fail))


def test_the_teacher_against_its_own_answers_is_the_noise_floor(held_out: HeldOut) -> None:
    assert held_out.due(TEACHER)
    pool: Any = BenchPool(bench_teacher())
    held_out.run(TEACHER, pool)
    assert not held_out.due(TEACHER)
    closeness = held_out.add(BLANK, TEACHER).closeness
    assert closeness is not None
    found = {name: each.value for name, each in measured(closeness).items()}
    # What is left is the rounding of the cache's encoding.
    assert 0 <= found["forward_kl"] < 1e-3 and 0 <= found["reverse_kl"] < 1e-3
    assert (found["top1_agreement"], found["topk_agreement"]) == (1.0, 1.0)
    (asked,) = pool.asked
    scored = dict(bench_teacher().score(asked, k=K))
    nats = np.concatenate([record.target_logprobs for record in scored.values() if isinstance(record, TeacherRecord)])
    assert found["perplexity"] == pytest.approx(math.exp(-nats.mean()), rel=1e-6)
    assert all(isinstance(request, ScoreRequest) for request in asked)


def test_a_student_needs_no_engine_and_no_teacher(held_out: HeldOut) -> None:
    student, found = bench_candidate(), closeness_of(random_beliefs(at, rows=3) for at in range(6))
    assert held_out.missing(student) and not held_out.due(student)
    held_out.keep(student, found)
    assert not held_out.missing(student)
    assert not held_out.missing(bench_candidate("renamed", "untouched")), "what it is called changes no number"
    assert held_out.missing(bench_candidate(digest="e" * 64))
    assert held_out.add(BLANK, student).closeness == found


def test_what_the_engine_says_is_not_what_a_forward_pass_says(held_out: HeldOut) -> None:
    assert held_out.address(TEACHER) != held_out.address(replace(TEACHER, role="student"))


def test_an_answer_that_the_teacher_refuses_is_named(held_out: HeldOut) -> None:
    pool: Any = MutePool(bench_teacher())
    with pytest.raises(EngineError, match=r"^answer 1 of 6 cannot be scored: too long$"):
        held_out.run(TEACHER, pool)
    assert held_out.due(TEACHER) and held_out.add(BLANK, TEACHER) is BLANK


def test_what_the_teacher_reads_at_most(held_out: HeldOut) -> None:
    assert held_out.teacher_tokens() == sum(len(record.token_ids) for record in held_out.bench.references())


def top_two(ids: tuple[int, int], probabilities: tuple[float, float], *, tail: float) -> TeacherRecord:
    return TeacherRecord(
        b"", np.array([7, ids[0]], np.int32), 1, "stop", "prefill",
        topk_ids=np.array([ids], np.int32),
        topk_logprobs=np.log(np.array([probabilities], np.float32)),
        target_logprobs=np.log(np.array([probabilities[0]], np.float32)),
        tail_logmass=np.array([math.log(tail) if tail else -math.inf], np.float32),
    )  # fmt: skip


def test_rows_are_compared_on_the_ids_that_both_name() -> None:
    """All else, an id that only one of them names included, lies in one bucket."""
    cached, live = top_two((5, 9), (0.5, 0.25), tail=0.25), top_two((9, 3), (0.4, 0.3), tail=0.3)
    found = shared_beliefs(cached, live)
    assert np.exp(found.teacher_topk).tolist() == [[0.0, 0.25]]
    assert np.exp(found.student_topk)[0] == pytest.approx([0.0, 0.4])
    assert np.exp(found.teacher_tail)[0] == pytest.approx(0.75)
    assert np.exp(found.student_tail)[0] == pytest.approx(0.6)
    assert np.exp(found.student_target)[0] == pytest.approx(0.4)
    assert (found.teacher_ids.tolist(), found.own_ids.tolist()) == ([[5, 9]], [[9, 3]])
    assert np.exp(found.own_best)[0] == pytest.approx(0.4)


def test_rows_that_name_the_whole_vocabulary_have_no_bucket() -> None:
    found = shared_beliefs(top_two((0, 1), (0.75, 0.25), tail=0), top_two((1, 0), (0.6, 0.4), tail=0))
    assert np.isneginf(found.teacher_tail).all() and np.isneginf(found.student_tail).all()
    assert np.exp(found.student_topk)[0] == pytest.approx([0.4, 0.6])
