"""A fill: engines are checked and asked only for what is missing, and what cannot be answered is set aside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import FakeRun, fake_run

from cache.protocols import Failure
from configs import BudgetReached
from orchestration.inputs.prompts import PromptSet
from orchestration.pipeline import fill_stage
from orchestration.pipeline.fill_stage import AskedTeacher, fill_and_pin
from orchestration.pipeline.lessons import Lesson
from teacher_server.reference import NoReferenceError


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return fake_run(tmp_path)


def filled(
    run: FakeRun, *, asked: AskedTeacher | None = None, assistant: str | None = None
) -> tuple[Lesson, PromptSet]:
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    return fill_and_pin(asked or run.asked(teacher, prompts), **run.parts, prompts=prompts, assistant=assistant)


def test_what_is_missing_is_asked_after_a_check(run: FakeRun) -> None:
    lesson, prompts = filled(run)
    (pool,) = run.compute.pools
    assert run.compute.called == ["cluster"]
    assert pool.called == ["check 2", "fill 7"]
    assert lesson.cache.stats().records == 7
    assert prompts.rejected == () and (run.settings.directory / "rejected.jsonl").read_text() == ""
    assert "1 up, agree with a plain forward pass" in run.said
    assert "7 new rows, " in run.said


def test_a_full_cache_starts_no_engine(run: FakeRun) -> None:
    one, _ = filled(run)
    again = fake_run(run.root)
    other, _ = filled(again)
    assert again.compute.called == [] and again.compute.pools[0].called == []
    assert "nothing to ask: every row is in the cache" in again.said and "teacher engine" not in again.said
    assert {name: view.digest for name, view in one.views.items()} == {
        name: view.digest for name, view in other.views.items()
    }


def test_engines_that_nothing_can_be_compared_with_are_used_with_a_warning(run: FakeRun) -> None:
    teacher = run.teacher()
    asked = run.asked(teacher, run.prompts(teacher))

    def refuse() -> None:
        raise NoReferenceError("too little memory")

    run.compute.pools[0].on_check = refuse
    filled(run, asked=asked)
    assert "! the engines were not compared with a plain forward pass: too little memory" in run.said
    assert "1 up, not compared with a plain forward pass" in run.said
    assert asked.cache.stats().records == 7


def test_a_large_teacher_is_compared_on_one_prompt(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_stage, "LARGE_BYTES", 10)
    filled(run)
    assert run.compute.pools[0].called[0] == "check 1"
    assert "agree with a plain forward pass on one prompt, for its weights are beyond 0 GiB" in run.said


def test_a_stopped_fill_keeps_what_it_has_and_goes_on_there(run: FakeRun) -> None:
    teacher = run.teacher()
    asked = run.asked(teacher, run.prompts(teacher))
    done = asked.pool.source.generate(list(asked.sets[0].requests), k=4)  # type: ignore[attr-defined]
    bought: list[Any] = [(record, asked.sets[0].requests[at]) for at, record in done]

    def stop() -> None:
        asked.cache.put(bought, vocab=teacher.files.vocab)
        raise KeyboardInterrupt

    run.compute.pools[0].on_fill = stop
    with pytest.raises(KeyboardInterrupt):
        filled(run, asked=asked)
    again = fake_run(run.root)
    filled(again)
    assert again.compute.pools[0].called == ["check 2", "fill 4"]


def test_a_budget_ends_a_fill(tmp_path: Path) -> None:
    run = fake_run(tmp_path, budgets={"max_teacher_tokens": 30})
    with pytest.raises(BudgetReached, match=r"6 rows are still missing; .* raise budgets\.max_teacher_tokens"):
        filled(run)


def test_what_cannot_be_answered_is_set_aside_and_never_asked_again(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    (gone, *_) = prompts.splits["train"]
    asked = run.asked(teacher, prompts)
    source = asked.pool.source  # type: ignore[attr-defined]
    work = type(source).work

    def refusing(self: Any, requests: Any) -> Any:
        noted: dict[int, Any] = {}

        def each() -> Any:
            for number, one in enumerate(requests):
                noted[number] = one
                yield one

        for step in work(self, each()):
            yield [
                (at, Failure("too long for it") if noted[at].request.prompt_ids == gone.prompt_ids else outcome)
                for at, outcome in step
            ]

    monkeypatch.setattr(type(source), "work", refusing)
    lesson, left = filled(run, asked=asked)
    assert [prompt.row for prompt in left.splits["train"]] == [1, 2]
    assert len(lesson.views["teacher-train"]) == 2
    (line,) = (run.settings.directory / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "too long for it" and json.loads(line)["row"] == 0
    assert "! 1 rows could not be answered, see" in run.said
    again = fake_run(run.root)
    _, left = filled(again)
    assert again.compute.pools[0].called == []
    assert [prompt.row for prompt in left.splits["train"]] == [1, 2]


def test_an_assistants_files_have_its_name(run: FakeRun) -> None:
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    asked = run.asked(teacher, prompts)
    sets = asked.plan.sets
    lesson, _ = fill_and_pin(
        replace(asked, plan=replace(asked.plan, sets=sets)), **run.parts, prompts=prompts, assistant="kd"
    )
    assert (run.settings.directory / "rejected-kd.jsonl").exists()
    assert lesson.paths["teacher-train"] == run.settings.directory / "views" / "kd" / "teacher-train.npz"
