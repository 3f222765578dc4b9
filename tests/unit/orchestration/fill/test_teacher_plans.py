"""What each teacher is asked: its own rows where rows are routed, the answers of the first where beliefs are mixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import SHAPE, experiment

from cache import GenerateRequest
from configs import ConfigError, DistillConfig
from orchestration.fill.teacher_plans import plans_of
from orchestration.inputs.asked_prompts import read_prompts
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher, open_teachers
from orchestration.plan.requests import FillPlan, NothingHeld

SECOND = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
ROUTE = {"kind": "route", "field": "prompt", "to": {}}


def opened(root: Path, **blocks: Any) -> tuple[DistillConfig, dict[str, Teacher], PromptSet]:
    config = experiment(root, **blocks)
    teachers = open_teachers(config)
    return config, teachers, read_prompts(config, teacher=teachers["teacher"].files).prompts


def planned(config: DistillConfig, teachers: dict[str, Teacher], prompts: PromptSet) -> dict[str, FillPlan]:
    return plans_of(teachers, prompts, config=config, caches={name: NothingHeld() for name in teachers})


def test_one_teacher_is_asked_every_prompt(tmp_path: Path) -> None:
    config, teachers, prompts = opened(tmp_path)
    (plan,) = planned(config, teachers, prompts).values()
    rows = sum(len(rows) for rows in prompts.splits.values())
    assert plan.misses == rows and plan.asks_teacher
    asked = {request.prompt_ids for part in plan.sets for request in part.sequences.requests}  # type: ignore[union-attr]
    assert asked == {row.prompt_ids for each in prompts.splits.values() for row in each}


def test_a_further_teacher_scores_what_the_first_writes(tmp_path: Path) -> None:
    config, teachers, prompts = opened(tmp_path, teachers={"second": SECOND}, combine={"kind": "mixture"})
    first, second = planned(config, teachers, prompts).values()
    assert [len(part.sequences.requests) for part in second.sets] == [
        len(part.sequences.requests) for part in first.sets
    ]
    assert all(isinstance(each, GenerateRequest) for part in first.sets for each in part.sequences.requests)


def test_several_teachers_are_not_shown_more_than_students(tmp_path: Path) -> None:
    config, teachers, prompts = opened(tmp_path, teachers={"second": SECOND}, combine={"kind": "mixture"})
    wide = {
        name: tuple(replace(row, wide_ids=(1, *row.prompt_ids)) for row in rows)
        for name, rows in prompts.splits.items()
    }
    with pytest.raises(ConfigError, match="shown more than its students, and teachers names second"):
        planned(config, teachers, replace(prompts, splits=wide))
