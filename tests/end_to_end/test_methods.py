"""Every method learns from what it says that it takes of its teacher, and from nothing else that a teacher has.

Each stage of a recipe takes its first step beside a tiny teacher that gives everything, through the learner and feed of
a run. Then one thing after the other is spoilt. What is taken has to change the step, and all else must not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alone import ALONE, lone_worker
from spoilt_teachers import EXAMPLES, PLAIN, SEQUENCES, Classroom
from torch import Tensor

from configs import load_experiment
from configs.methods import METHODS, RECIPES, Method, Taken, taken_by
from configs.schema import DistillConfig
from configs.stages import StageConfig
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import TaskStageConfig
from student_train.job import StageJob
from student_train.training.general import GeneralLearner
from student_train.training.learner import Learner
from student_train.training.sequences import SequenceLearner
from student_train.training.tasks import TaskLearner

SAME, OTHER = 1e-5, 1e-3
"""Shares of a gradient: two steps that differ by less are the same, by more they are not, and none lies between."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A stage of a student: of a task where it has a `start`, `general` before it; else of a language model.

    A language model that is not cut from its teacher has `another` tokenizer here.
    """

    stage: StageConfig | TaskStageConfig
    start: str | None = None
    general: bool = False
    another: bool = False

    @property
    def could(self) -> tuple[Taken, ...]:
        """What a teacher could give it."""
        if self.start is None:
            return SEQUENCES
        return PLAIN if self.general else EXAMPLES

    def learner(self, classroom: Classroom, *, spoilt: Taken | None) -> tuple[Learner, StageJob]:
        """Whoever learns it, with one thing spoilt, and the training."""
        job: StageJob
        if isinstance(self.stage, StageConfig):
            job = classroom.sequences(self.stage, spoilt=spoilt, retokenised=self.another)
            return SequenceLearner(job, group=ALONE), job
        if self.general:
            job = classroom.plain_text(self.stage, spoilt=spoilt)
            return GeneralLearner(job, group=ALONE), job
        assert self.start is not None
        job = classroom.examples(self.stage, spoilt=spoilt, start=self.start)
        return TaskLearner(job, group=ALONE), job


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    return Classroom(tmp_path_factory.mktemp("methods"))


def lessons(config: DistillConfig | TaskDistillConfig) -> Iterator[Lesson]:
    """Every stage of an experiment."""
    if isinstance(config, DistillConfig):
        for model in config.students.values():
            yield from (Lesson(stage, another=model.init.model is not None) for stage in model.stages)
        return
    for student in config.students.values():
        yield from (Lesson(stage, student.start.kind, general=True) for stage in student.general)
        yield from (Lesson(stage, student.start.kind) for stage in student.stages)


def first_step(lesson: Lesson, classroom: Classroom, *, spoilt: Taken | None) -> Tensor:
    """Loss and gradient of the first step of a stage, in one vector."""
    torch.manual_seed(0)
    learner, job = lesson.learner(classroom, spoilt=spoilt)
    module: Any = learner.module
    engine = SimpleNamespace(logprobs=lambda batch: module(batch, scores=True)[0].detach())
    step = next(learner.steps(lone_worker(job, learner, engine=engine), first=0))
    assert step is not None
    module.train()
    losses = []
    for batch in step.batches:
        loss, _ = module(batch)
        loss.backward()
        losses.append(loss.detach().reshape(1))
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    return torch.cat([*losses, *(gradient.flatten() for gradient in gradients)]) / step.places


@cache
def noticed(lesson: Lesson, classroom: Classroom) -> frozenset[Taken]:
    """What a stage learns from: whatever changes its first step when it is spoilt. Recipes have stages in common."""
    usual = first_step(lesson, classroom, spoilt=None)
    found: set[Taken] = set()
    for taken in lesson.could:
        apart = float((first_step(lesson, classroom, spoilt=taken) - usual).norm() / usual.norm())
        assert not SAME < apart < OTHER, f"{taken} changes a step by {apart:.2g}: neither nothing nor much"
        if apart >= OTHER:
            found.add(taken)
    # Whoever reads logits also reads which one is the largest.
    return frozenset(found - {"label"} if "logits" in found else found)


def noticed_in(config: DistillConfig | TaskDistillConfig, classroom: Classroom) -> frozenset[Taken]:
    return frozenset().union(*(noticed(lesson, classroom) for lesson in lessons(config)))


def with_stage(recipe: str, changes: dict[str, Any]) -> DistillConfig | TaskDistillConfig:
    """The experiment of a recipe whose students have their first stage alone, with other fields."""
    config = load_experiment(RECIPES / f"{recipe}.yaml")
    changed = {}
    for name, student in config.students.items():
        first = student.stages[0]
        stage = type(first).model_validate(first.model_dump() | changes)
        changed[name] = student.model_copy(update={"stages": (stage,)})
    return config.model_copy(update={"students": changed})


ROLLOUT = {"count": 1, "prompts": 4, "epochs": 1, "minibatches": 1, "max_new_tokens": 8}

FURTHER: dict[str, tuple[str, dict[str, Any], set[Taken]]] = {
    "labels of a teacher": ("tang", {"objective": "hard_labels", "labels": "teacher"}, {"label"}),
    "gold labels": ("tang", {"objective": "hard_labels"}, set()),
    "a live teacher": ("tang", {"teacher": "live"}, {"afresh"}),
    "a live teacher and features": (
        "self-distillation",
        {"teacher": "live", "features": [{"kind": "hidden_mse"}]},
        {"afresh", "inside"},
    ),
    "rollouts alone": ("word-kd", {"steps": None, "warmup_steps": 0, "rollout": ROLLOUT}, {"scores"}),
    "rollouts with a share of the teacher's": (
        "word-kd",
        {"steps": None, "warmup_steps": 0, "rollout": ROLLOUT | {"share": 0.5}},
        {"scores", "topk"},
    ),
    "features of a language model": ("seqkd", {"features": [{"kind": "cosine"}]}, {"text", "inside"}),
}
"""Stages that no recipe has: a recipe, what is changed of its first stage, and what that takes."""


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_learns_from_what_it_says_that_it_takes(method: Method, classroom: Classroom) -> None:
    assert noticed_in(load_experiment(method.recipe), classroom) == method.takes


@pytest.mark.parametrize("name", FURTHER)
def test_so_do_stages_that_no_recipe_has(name: str, classroom: Classroom) -> None:
    recipe, changes, takes = FURTHER[name]
    config = with_stage(recipe, changes)
    assert noticed_in(config, classroom) == takes == taken_by(config)
