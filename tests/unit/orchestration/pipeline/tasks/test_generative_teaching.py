"""A language model is asked about all sets of an experiment, with engines that say what a function says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_pipeline_builders import TaskPlace, spoken_place

from cache import CacheView
from configs import BudgetReached
from orchestration.inputs.task_examples import Said
from orchestration.inputs.task_sets import TaskSets
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.pipeline.tasks.generative_teaching import AskedInWords, GenerativeTeaching

HARD = {"objective": "hard_labels", "labels": "teacher"}


def opened(place: TaskPlace) -> tuple[AskedInWords, LoadedTask]:
    run = place.run
    task = load_task(run.config.task)
    teaching: Any = place.teaching(run, place.journal, place.workers)
    assert "identity" in teaching.require(task, progress=lambda done, total: None)
    return teaching.plan(task, TaskSets({"train": task.train}, ()), prepared=None), task


def test_what_is_missing_is_asked_checked_counted_and_pinned(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage=HARD)
    asked, task = opened(place)
    assert (asked.wanted.answers, asked.wanted.misses) == (20, 20) and asked.wanted.stored_bytes > 0
    assert asked.pin(tmp_path / "views") == {}
    asked.ask()
    assert place.called == ["check 2", "fill 20", "release"] and place.workers.clusters == 1
    assert place.journal.ledger.counts().fill > 0
    views = asked.pin(tmp_path / "views")
    assert list(views) == ["train", "dev", "test"]
    assert CacheView.load(tmp_path / "views/train.npz").digest == views["train"]
    beliefs = asked.about(task.train)
    assert [int(each.logits.argmax()) for each in beliefs if not isinstance(each, Said | None)] == [0, 1, 0, 1, 0, 1]
    again, _ = opened(place)
    assert again.wanted.misses == 0
    again.ask()
    assert place.called[3:] == ["release"] and "nothing to ask: every row is in the cache" in place.said


def test_its_row_is_of_the_answers_on_dev_and_test(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage=HARD)
    asked, _ = opened(place)
    asked.ask()
    given = asked.given()["teacher"]
    assert [example.predicted for example in given.test.examples] == [("good",), ("bad",)]
    assert [example.answer.strip() for example in given.dev.examples] == ["good", "bad, clearly"]
    assert given.test.answered_by == "text, held to what can be read" and given.digest == asked.name.identity.digest()
    assert given.parameters == asked.asked.teacher.files.shape.parameters and given.disk_bytes > 0


def test_what_was_refused_or_not_read_is_said_and_refusals_are_not_asked_again(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage=HARD)
    words = {"sun is": None, "rain is": "hm"}
    place.speaks["says"] = lambda prompt: words.get(prompt, "bad")
    asked, task = opened(place)
    asked.ask()
    assert asked.notes() == (
        "train: the teacher did not answer 1 of 6 questions",
        "train: 1 of 6 answers of the teacher could not be read",
    )
    assert asked.about(task.train)[:3] == [None, None, Said(("bad",))]
    again, _ = opened(place)
    assert again.wanted.misses == 0 and again.asked.plan.refused


def test_a_budget_ends_it_and_what_was_bought_stays(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage=HARD)
    place.values["budgets"] = {"max_teacher_tokens": 60}
    asked, _ = opened(place)
    with pytest.raises(BudgetReached):
        asked.ask()
    place.values["budgets"] = {}
    rest, _ = opened(place)
    assert 0 < rest.wanted.misses < 20


def test_texts_are_read_with_its_tokenizer_for_starts_that_measure_it(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage=HARD)
    asked, _ = opened(place)
    rows = asked.rows()
    assert len(rows) == 10 and [len(row) for row in rows[:2]] == [len("sun"), len("rain")]


@pytest.mark.parametrize(("answers", "grammars"), [("labels", False), ("text", True)])
def test_engines_for_text_hold_answers_to_grammars(answers: str, grammars: bool, tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers=answers, stage=HARD)
    workers: Any = place.workers
    asked = GenerativeTeaching(place.run, place.journal, workers).plan(
        load_task(place.run.config.task), TaskSets({}, ()), prepared=None
    )
    spec = asked.asked.pool.spec
    assert (spec.grammars, spec.teaches, spec.identity) == (grammars, True, asked.name.identity)
    assert spec.ledger == place.journal.ledger.directory.absolute()
