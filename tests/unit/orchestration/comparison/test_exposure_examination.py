"""Exposure of a student: what is read of it, and where it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_builders import BenchPool, MutePool, answers_of, bench_candidate, bench_teacher, real_bench
from results_builders import model_results

from cache.protocols import Failure
from evaluation.results import Exposure
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison.exposure_examination import ExposureBias
from orchestration.comparison.written_answers import Answering
from orchestration.outputs.artifacts import Artifacts

FOUND = Exposure((2.0, 1.0), (2, 1), (1.0, 1.0), (2, 2), (0.5, 0.25), (2, 1), ((3.0, 2.0, 1.0, 2.0),) * 2)


@pytest.fixture
def exposure(tmp_path: Path) -> ExposureBias:
    return ExposureBias(real_bench(tmp_path), Artifacts(tmp_path / "runs", say=pytest.fail), "t" * 64)


def answered(exposure: ExposureBias, pool: BenchPool) -> None:
    given: Any = pool
    Answering(exposure.bench, exposure.artifacts).run(bench_candidate(), given)


def test_both_answers_follow_the_same_prompts(exposure: ExposureBias) -> None:
    assert exposure.answers(bench_candidate()) is None, "it has not answered yet"
    answered(exposure, BenchPool(bench_teacher(seed=1)))
    found = exposure.answers(bench_candidate())
    assert found is not None and found.dtype == "float32"
    wrote = answers_of(bench_teacher(seed=1), exposure.bench)
    assert [list(each.token_ids) for each in found.free] == [record.token_ids.tolist() for record in wrote]
    references = exposure.bench.references()
    assert [list(each.token_ids) for each in found.forced] == [record.token_ids.tolist() for record in references]
    assert {each.prompt_len for each in (*found.free, *found.forced)} == {2}
    assert found.tokens == sum(len(record.token_ids) for record in (*wrote, *references))


def test_answers_are_read_as_far_as_both_were_allowed_to_go(exposure: ExposureBias) -> None:
    short = replace(exposure, bench=replace(exposure.bench, compared_tokens=3))
    answered(short, BenchPool(bench_teacher(seed=1)))
    found = short.answers(bench_candidate())
    assert found is not None and max(len(each.token_ids) for each in (*found.free, *found.forced)) == 5


def test_a_prompt_without_an_answer_is_left_out(exposure: ExposureBias, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = BenchPool(bench_teacher(seed=1))
    answer = pool.answer

    def first_fails(requests: Any, *, k: int) -> TimedAnswers:
        found = answer(requests, k=k)
        return replace(found, outcomes=(Failure("too long"), *found.outcomes[1:]))

    monkeypatch.setattr(pool, "answer", first_fails)
    answered(exposure, pool)
    found = exposure.answers(bench_candidate())
    assert found is not None and len(found.free) == len(found.forced) == 5
    assert [each.token_ids[:2] for each in found.forced] == [each.prompt_ids for each in exposure.bench.requests[1:]]


def test_a_student_is_read_once_under_whatever_name(exposure: ExposureBias) -> None:
    blank = model_results("kd")
    assert exposure.missing(bench_candidate()) and exposure.add(blank, bench_candidate()) is blank
    exposure.keep(bench_candidate(), FOUND)
    assert not exposure.missing(bench_candidate("renamed"))
    assert exposure.add(blank, bench_candidate()).exposure == FOUND
    assert exposure.missing(bench_candidate(digest="e" * 64))
    assert replace(exposure, teacher="u" * 64).missing(bench_candidate()), "another teacher"
    other = replace(exposure, bench=replace(exposure.bench, compared_tokens=3))
    assert other.missing(bench_candidate()), "other answers"


def test_the_teacher_has_no_exposure(exposure: ExposureBias) -> None:
    teacher = bench_candidate("teacher", "teacher")
    assert not exposure.missing(teacher) and exposure.address(teacher) is None
    row = model_results("teacher", exposure=None)
    assert exposure.add(row, teacher) is row


def test_who_answered_nothing_is_not_read(exposure: ExposureBias) -> None:
    with pytest.raises(Exception, match="answered no test prompt"):
        answered(exposure, MutePool(bench_teacher()))
    assert exposure.answers(bench_candidate()) is None
