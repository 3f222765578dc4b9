"""Stages of task students that cannot work are refused before their first step, in one line with the cure."""

from __future__ import annotations

import numpy as np

from configs.errors import ConfigError, DataError
from configs.task_stages import TaskStageConfig
from student_train.feed.examples import UNKNOWN, ExampleSet
from student_train.job import TaskJob


def require_task_ready(job: TaskJob, *, train: ExampleSet, dev: ExampleSet | None) -> None:
    """Refuse a stage whose examples and settings do not go together.

    Raises:
        DataError: no examples, those of another task, or without the labels or logits that the stage needs.
        ConfigError: settings that the examples cannot serve.
    """
    _require_task(job, examples=train, name="train")
    if dev is not None:
        _require_task(job, examples=dev, name="dev")
    _require_dev(job.stage, dev=dev)
    _require_known(job.stage, examples=train, name="train")
    if dev is not None:
        _require_known(job.stage, examples=dev, name="dev")
    _require_classes(job.stage, train=train)
    if job.stage.gold_weight and not known_gold(train):
        raise ConfigError(
            f"gold_weight={job.stage.gold_weight:g} weighs gold labels, and none of {len(train):,} examples has one: "
            "name a set with gold labels in data, or remove gold_weight"
        )
    longest, most = longest_of(train, dev), job.settings.micro_batch_tokens
    if longest > most:
        raise ConfigError(
            f"the longest example has {longest:,} tokens and runtime.training.micro_batch_tokens is {most:,}: raise "
            "it, or lower the student's max_tokens"
        )
    related = job.stage.related
    if related * longest > most:
        raise ConfigError(
            f"features relate {related} texts, of up to {longest:,} tokens each, and "
            f"runtime.training.micro_batch_tokens={most:,} has no room for so many: raise it to {related * longest:,}, "
            "or lower group"
        )


def known_gold(examples: ExampleSet) -> int:
    """How many decisions have a gold label."""
    return int(np.count_nonzero(examples.gold != UNKNOWN))


def longest_of(train: ExampleSet, dev: ExampleSet | None) -> int:
    """Tokens of the longest example."""
    return max(int(part.lengths.max()) for part in (train, dev) if part is not None)


def _require_task(job: TaskJob, *, examples: ExampleSet, name: str) -> None:
    if (examples.kind, examples.labels) != (job.kind, job.labels):
        raise DataError(
            f"the {name} examples are of {examples.kind} with {len(examples.labels)} labels, not those of this task "
            f"({job.kind}, {len(job.labels)} labels): delete them and run again"
        )
    if not len(examples) or not len(examples.gold):
        raise DataError(f"there are no {name} examples: give the task rows of its {name} split")


def _require_dev(stage: TaskStageConfig, *, dev: ExampleSet | None) -> None:
    if stage.select == "last":
        return
    if dev is None:
        raise ConfigError(f"select={stage.select} needs the dev split of the task, which has none: set select: last")
    if stage.select == "dev_accuracy" and (bare := len(dev.gold) - known_gold(dev)):
        raise DataError(
            f"select=dev_accuracy needs a gold label for each of the {len(dev.gold):,} decisions of the dev split and "
            f"{bare:,} have none: label them, or set select: dev_loss"
        )


def _require_known(stage: TaskStageConfig, *, examples: ExampleSet, name: str) -> None:
    bare = len(examples.gold) - known_gold(examples)
    if stage.needs == "gold" and bare:
        raise DataError(
            f"objective={stage.objective} learns gold labels and {bare:,} of {len(examples.gold):,} decisions of "
            f"the {name} examples have none: leave their set out of data, or set labels: teacher"
        )
    if stage.needs_answers and examples.teacher is None:
        raise DataError(
            f"objective={stage.objective} needs what the teacher says of the {name} examples, which hold no logits of "
            "it: ask the teacher, or set objective: hard_labels with labels: gold"
        )


def _require_classes(stage: TaskStageConfig, *, train: ExampleSet) -> None:
    """A class without one example is never answered. A tag may be rare, and a span has no class."""
    if stage.needs != "gold" or train.kind != "classification":
        return
    counts = np.bincount(train.gold, minlength=len(train.labels))
    if not counts.all():
        empty = [train.labels[at] for at in np.flatnonzero(counts == 0)]
        shown = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
        raise DataError(
            f"no gold example has the label {shown}: add rows of it to the task's train split, or take it out of the "
            "task's labels"
        )
