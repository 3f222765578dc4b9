"""Stages of task students that cannot work, refused in one line that names the cure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_jobs import made_examples, make_task_job, task_variant

from configs.errors import ConfigError, DataError, DistillError
from student_train.feed.examples import ExampleSet
from student_train.job import TaskJob
from student_train.training.task_readiness import require_task_ready

TRAIN, DEV = made_examples(30, seed=1), made_examples(12, seed=2)
BARE = made_examples(30, seed=1, gold=False)
UNASKED = made_examples(12, seed=2, teacher=False)
HARD = {"objective": "hard_labels", "temperature": 1.0, "gold_weight": 0.0}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TaskJob:
    return make_task_job(tmp_path_factory.mktemp("job"))


def without_class(number: int) -> ExampleSet:
    gold = np.where(TRAIN.gold == number, (number + 1) % 3, TRAIN.gold).astype(np.int32)
    return replace_gold(TRAIN, gold)


def replace_gold(examples: ExampleSet, gold: np.ndarray) -> ExampleSet:
    fields = {name: getattr(examples, name) for name in examples.__dataclass_fields__ if name != "digest"}
    return ExampleSet(**fields | {"gold": gold})


def some_unknown(examples: ExampleSet) -> ExampleSet:
    gold = examples.gold.copy()
    gold[:3] = -1
    return replace_gold(examples, gold)


@pytest.mark.parametrize(
    ("stage", "train", "dev", "kind", "said"),
    [
        ({}, made_examples(3, seed=1, kind="tagging"), DEV, DataError, "the train examples are of tagging with 3 labels"),
        ({}, made_examples(0, seed=1), DEV, DataError, "there are no train examples: give the task rows of its train"),
        ({}, TRAIN, made_examples(0, seed=1), DataError, "there are no dev examples"),
        ({}, TRAIN, None, ConfigError, "select=dev_accuracy needs the dev split of the task, which has none: set select"),
        ({}, TRAIN, some_unknown(DEV), DataError, "for each of the 12 decisions of the dev split and 3 have none: label"),
        (HARD, some_unknown(TRAIN), DEV, DataError, "learns gold labels and 3 of 30 decisions of the train examples have"),
        (HARD, without_class(1), DEV, DataError, "no gold example has the label maybe: add rows of it to the task's"),
        ({}, made_examples(9, seed=1, teacher=False), DEV, DataError, "what the teacher says of the train examples, which"),
        ({}, TRAIN, UNASKED, DataError, "objective=soft_labels needs what the teacher says of the dev examples, which"),
        (HARD | {"labels": "teacher"}, TRAIN, UNASKED, DataError, "objective=hard_labels needs what the teacher says"),
        ({}, BARE, DEV, ConfigError, "gold_weight=0.25 weighs gold labels, and none of 30 examples has one: name"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(
    job: TaskJob,
    tmp_path: Path,
    stage: dict[str, Any],
    train: ExampleSet,
    dev: ExampleSet | None,
    kind: type[DistillError],
    said: str,
) -> None:
    with pytest.raises(kind) as refused:
        require_task_ready(task_variant(job, tmp_path, stage=stage), train=train, dev=dev)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_examples_longer_than_a_micro_batch_are_refused(job: TaskJob, tmp_path: Path) -> None:
    small = task_variant(job, tmp_path, settings={"micro_batch_tokens": 10})
    with pytest.raises(
        ConfigError, match=r"longest example has 11 tokens and runtime\.training\.micro_batch_tokens is 10"
    ):
        require_task_ready(small, train=TRAIN, dev=DEV)


def test_a_group_that_no_micro_batch_holds_is_refused(job: TaskJob, tmp_path: Path) -> None:
    stage = {"features": [{"kind": "distance_relation", "group": 4}]}
    with pytest.raises(
        ConfigError, match=r"relate 4 texts, of up to 11 tokens.*micro_batch_tokens=24 .*raise it to 44"
    ):
        require_task_ready(task_variant(job, tmp_path, stage=stage), train=TRAIN, dev=DEV)


@pytest.mark.parametrize(
    ("stage", "train", "dev"),
    [
        ({}, TRAIN, DEV),
        ({"select": "dev_loss"}, some_unknown(TRAIN), some_unknown(DEV)),
        ({"select": "last"}, TRAIN, None),
        ({"gold_weight": 0.0}, BARE, DEV),
        (HARD, made_examples(30, seed=1, teacher=False), UNASKED),
        (HARD | {"labels": "teacher"}, BARE, DEV),
    ],
)
def test_what_goes_together_is_taken(
    job: TaskJob, tmp_path: Path, stage: dict[str, Any], train: ExampleSet, dev: ExampleSet | None
) -> None:
    require_task_ready(task_variant(job, tmp_path, stage=stage), train=train, dev=dev)


def test_a_rare_tag_is_no_reason_to_refuse(job: TaskJob, tmp_path: Path) -> None:
    tags = made_examples(9, seed=1, kind="tagging")
    rare = replace_gold(tags, np.zeros_like(tags.gold))
    hard = replace(task_variant(job, tmp_path, stage=HARD), kind="tagging")
    require_task_ready(hard, train=rare, dev=tags)
