"""What an experiment asks a language model about the examples of its task, and how much of it the cache holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs import ConfigError
from configs.models import Device
from configs.schema import StoredEncoding
from configs.task_experiment import TaskDistillConfig
from evaluation.tasks.examples import Example
from orchestration.comparison.task_questions import Asking
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.shapes import PlannedShape
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.console import Console
from orchestration.pipeline.tasks.generative_teacher import TaskQuestions
from orchestration.pipeline.tasks.lessons import DEV, TEST
from orchestration.plan.duration import expected_seconds
from orchestration.plan.requests import FillPlan, Holdings, Refused, SequenceSet, plan_fill
from orchestration.plan.signal_requests import asked_sets
from orchestration.plan.tables import show_plan, teacher_work

CONTENT_FREE = "content-free"
"""What the questions without content are called in a plan."""

ENCODING: StoredEncoding = "topk-f16"
"""How rows are stored; what is read of them, the log-probability of each given token, is exact in all encodings."""


def task_questions(config: TaskDistillConfig, task: LoadedTask, files: ModelFiles) -> TaskQuestions:
    """How the teacher of an experiment is asked."""
    longest = config.runtime.teacher_engine.max_model_len
    return TaskQuestions(files, task, config.teacher, Asking(max_prompt_tokens=longest))


def asked_examples(config: TaskDistillConfig, task: LoadedTask, sets: TaskSets) -> dict[str, tuple[Example, ...]]:
    """The examples that it is asked about, by set: those that students learn from it of; dev and test."""
    return {**sets.only(asked_sets(config)), DEV: task.dev, TEST: task.test}


def require_fitting_context(questions: TaskQuestions, examples: Mapping[str, Sequence[Example]]) -> str:
    """What is to be said of questions that are too long with the context of the teacher; "" where none is.

    Raises:
        ConfigError: all of them are.
    """
    asked = [one for part in examples.values() for one in questions.of(part)]
    lost = [one for one in asked if questions.is_too_long(one)]
    if not lost:
        return ""
    longest = max(len(one.prompt_ids) for one in lost)
    sides = (
        f"with teacher_context have up to {longest:,} tokens, and runtime.teacher_engine.max_model_len="
        f"{questions.asking.max_prompt_tokens:,} has to hold them and an answer"
    )
    if len(lost) == len(asked):
        raise ConfigError(f"all questions {sides}: raise it, or show less")
    return f"{len(lost):,} of {len(asked):,} questions {sides}: they are not asked"


def plan_questions(
    questions: TaskQuestions,
    examples: Mapping[str, Sequence[Example]],
    *,
    cache: Holdings,
    refused: Refused,
) -> FillPlan:
    """What the cache lacks of the answers about these examples.

    Raises:
        ModelError: the model cannot be asked in this way.
    """
    asked = {name: questions.of(part) for name, part in examples.items()}
    if questions.settings.calibrated:
        asked[CONTENT_FREE] = questions.content_free()
    sets = [
        SequenceSet("teacher", name, tuple(r for one in part for r in questions.requests(one)), questions.k, ENCODING)
        for name, part in asked.items()
    ]
    return plan_fill(sets, cache=cache, refused=refused)


def show_questions(
    plan: FillPlan, *, config: TaskDistillConfig, files: ModelFiles, device: Device, console: Console
) -> None:
    """Print hits and misses set by set, and what the misses would cost at most."""
    time = None
    if config.teacher.serve is None:
        time = expected_seconds(
            PlannedShape(files.label, files.shape, assumed=False),
            work=teacher_work(plan),
            settings=config.runtime.teacher_engine,
            accelerator=device,
            dtype=config.teacher.dtype,
        )
    show_plan(plan, time=time, console=console)
