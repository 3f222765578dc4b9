"""A model answers the test prompts once: what is kept of it, and what a row gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench_builders import BenchPool, MutePool, answers_of, bench_candidate, bench_teacher, real_bench
from results_builders import model_results, serving

from configs import EngineError
from evaluation.closeness import length_ratio, measured
from evaluation.results import Serving
from orchestration.comparison.bench import lengths
from orchestration.comparison.written_answers import WARM_UP, Answering
from orchestration.outputs.artifacts import Artifacts


@pytest.fixture
def answering(tmp_path: Path) -> Answering:
    return Answering(real_bench(tmp_path), Artifacts(tmp_path / "runs", say=pytest.fail))


def test_what_a_model_wrote_stands_in_its_row(answering: Answering) -> None:
    pool: Any = BenchPool(bench_teacher(seed=1))
    wrote = answers_of(bench_teacher(seed=1), answering.bench)
    answering.run(bench_candidate(), pool)
    blank = model_results("kd", closeness=None, answers=(), answer_tokens=(), serving=None)
    row = answering.add(blank, bench_candidate())
    assert row.answers == answering.bench.texts(wrote)
    assert row.answer_tokens == lengths(wrote)
    assert answering.answer_ids(bench_candidate()) == tuple(tuple(each.response_ids.tolist()) for each in wrote)
    assert row.closeness is not None
    assert measured(row.closeness)["rouge_l"].value < 100
    assert length_ratio(row.closeness) == sum(lengths(wrote)) / sum(lengths(answering.bench.references()))
    assert [len(part) for part in pool.asked] == [WARM_UP, 6], "an engine is warm before its answers are timed"


@pytest.mark.parametrize("known", [None, serving(7.0)])
def test_how_fast_it_is_served_stays_what_is_known_of_it(known: Serving | None, answering: Answering) -> None:
    pool: Any = BenchPool(bench_teacher(seed=1))
    answering.run(bench_candidate(), pool)
    row = answering.add(model_results("kd", closeness=None, answers=(), serving=known), bench_candidate())
    assert row.answers and row.serving is known


def test_nobody_answers_twice_under_whatever_name(answering: Answering) -> None:
    assert answering.due(bench_candidate())
    pool: Any = BenchPool(bench_teacher(seed=1))
    answering.run(bench_candidate(), pool)
    assert not answering.due(bench_candidate("renamed"))
    assert answering.due(bench_candidate(digest="e" * 64))


def test_what_was_kept_with_other_fields_is_named_and_asked_again(answering: Answering, tmp_path: Path) -> None:
    said: list[str] = []
    again = Answering(answering.bench, Artifacts(tmp_path / "runs", say=said.append))
    again.artifacts.write_evaluation(again.address(bench_candidate()), {"answers": ["one"]})
    assert again.due(bench_candidate())
    assert len(said) == 1 and "is not an evaluation (WrittenAnswers: 'answer_ids' is missing" in said[0]


def test_a_model_that_answers_nothing_says_why(answering: Answering) -> None:
    pool: Any = MutePool(bench_teacher())
    with pytest.raises(EngineError, match=r"^kd answered no test prompt: too long$"):
        answering.run(bench_candidate(), pool)
    row = model_results("kd")
    assert answering.due(bench_candidate()) and answering.add(row, bench_candidate()) is row
    assert answering.answer_ids(bench_candidate()) == ()


def test_what_the_teacher_writes_at_most(answering: Answering) -> None:
    assert answering.teacher_tokens() == (6 + WARM_UP) * (2 + 12)
