"""Every method is what its recipe does: value, recipe and page agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs import load_experiment
from configs.methods import KEPT, LIVE, METHODS, RECIPES, Method, taken_by
from configs.objectives import OBJECTIVES
from configs.task_objectives import TASK_OBJECTIVES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "methods.md"

each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@each
def test_it_takes_of_its_teacher_what_the_stages_of_its_recipe_take(method: Method) -> None:
    assert taken_by(load_experiment(method.recipe)) == method.takes


@each
def test_its_knowledge_is_of_the_kind_that_it_takes(method: Method) -> None:
    inside = {"states", "inside"} & method.takes
    assert ("response" in method.knowledge) == bool(method.takes - {"states", "inside"})
    assert bool({"feature", "relation"} & set(method.knowledge)) == bool(inside)


@each
def test_its_page_has_a_section_with_its_paper_and_its_recipe(method: Method) -> None:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    (section,) = [text for text in sections if f"`{method.name}`" in text.splitlines()[0]]
    assert method.paper.split("arXiv ")[-1] in section
    assert f"configs/recipes/{method.name}.yaml" in section


def test_there_is_one_recipe_a_method() -> None:
    assert {method.recipe for method in METHODS} == set(RECIPES.glob("*.yaml"))
    assert len({method.name for method in METHODS}) == len(METHODS)


def test_whatever_is_taken_is_kept_or_live() -> None:
    assert not set(KEPT) & set(LIVE)
    for method in METHODS:
        assert len(method.kept) + len(method.live) == len(method.takes)


def test_every_objective_that_learns_of_a_teacher_has_a_method() -> None:
    stages = [
        stage.objective
        for method in METHODS
        for student in load_experiment(method.recipe).students.values()
        for stage in (*getattr(student, "general", ()), *student.stages)
    ]
    assert set(stages) >= (set(OBJECTIVES) | set(TASK_OBJECTIVES)) - {"sft", "hard_labels"}
