from __future__ import annotations

import io
from pathlib import Path

import pytest
from task_pipeline_builders import spoken_place

from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.models import materialise
from orchestration.inputs.tasks import load_task
from orchestration.outputs.console import Console
from orchestration.pipeline.tasks.generative_plan import (
    asked_examples,
    plan_questions,
    show_questions,
    task_questions,
)
from orchestration.plan.requests import NothingHeld


class Never:
    """A teacher that refused what is asked of `rain`, by the bytes of its prompt."""

    def reason(self, request: object) -> str | None:
        return None


@pytest.mark.parametrize(
    ("answers", "calibrated", "asked"),
    [("labels", False, [12, 4, 4]), ("labels", True, [12, 4, 4, 6]), ("text", False, [6, 2, 2])],
)
def test_every_label_of_every_example_is_asked_or_one_answer(
    tmp_path: Path, answers: str, calibrated: bool, asked: list[int]
) -> None:
    place = spoken_place(tmp_path, answers=answers, stage={"objective": "hard_labels", "labels": "teacher"})
    place.values["teacher"]["calibrated"] = calibrated
    config = place.run.config
    task = load_task(config.task)
    files = materialise(config.teacher.model, models_root=config.runtime.models_root)
    questions = task_questions(config, task, files)
    assert questions.asking.max_prompt_tokens == 128
    examples = asked_examples(config, task, TaskSets({"train": task.train}, ()))
    assert list(examples) == ["train", "dev", "test"]
    plan = plan_questions(questions, examples, cache=NothingHeld(), refused=Never())
    assert [len(part.sequences.requests) for part in plan.sets] == asked
    stream = io.StringIO()
    show_questions(plan, config=config, files=files, device="cpu", console=Console(stream))
    assert f"At most {plan.prompt_tokens + plan.response_tokens:,} teacher tokens" in stream.getvalue()


def test_what_nobody_learns_from_is_not_asked_about(tmp_path: Path) -> None:
    gold = {"objective": "hard_labels", "data": ["train"]}
    place = spoken_place(tmp_path, answers="text", stage=gold)
    config = place.run.config
    task = load_task(config.task)
    assert list(asked_examples(config, task, TaskSets({"train": task.train}, ()))) == ["dev", "test"]
