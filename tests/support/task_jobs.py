"""Examples of tasks that can be learned, and the trainings of tiny students on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from task_students import LABELS, WORDS, save_student

from configs.schema import TrainingSettings
from configs.task import TaskKind
from configs.task_features import StateName
from configs.task_stages import TaskStageConfig
from student_train.feed.examples import ExampleSet
from student_train.job import TaskJob, TaughtInside
from student_train.models.task_model import stored_inside

TASK_STAGE: dict[str, Any] = {
    "objective": "soft_labels",
    "temperature": 2.0,
    "gold_weight": 0.25,
    "epochs": 1.5,
    "batch_size": 7,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "weight_decay": 0.1,
}
SPAN_LABELS = ("first", "last")
"""Labels of a task with spans."""


def made_examples(
    count: int, *, seed: int, kind: TaskKind = "classification", teacher: bool = True, gold: bool = True
) -> ExampleSet:
    """Texts of 3 to 11 tokens. Gold follows from the token ids, and the teacher believes it, but for some noise."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 12, size=count)
    token_ids = draw.integers(4, len(WORDS), size=int(lengths.sum())).astype(np.int32)
    token_offsets = np.concatenate([[0], np.cumsum(lengths)])
    token_ids[token_offsets[:-1]] = WORDS.index("[CLS]")
    labels = SPAN_LABELS if kind == "extractive_qa" else LABELS
    classes = len(labels)
    if kind == "classification":
        units, unit_tokens = np.ones(count, np.int64), np.zeros(count, np.int64)
        right = token_ids[token_offsets[:-1] + 1] % classes
    else:
        units = lengths - 1
        unit_tokens = np.concatenate([np.arange(1, length) for length in lengths])
        right = token_ids[np.repeat(token_offsets[:-1], units) + unit_tokens] % classes
    unit_offsets = np.concatenate([[0], np.cumsum(units)])
    logits = 0.5 * draw.standard_normal((int(units.sum()), classes))
    logits[np.arange(len(logits)), right] += 2.0
    if kind == "extractive_qa":
        ends = np.sort(draw.integers(0, units.repeat(2)).reshape(count, 2), axis=1)
        right = ends.reshape(-1)
    return ExampleSet(
        kind=kind,
        labels=labels,
        token_ids=token_ids,
        token_offsets=token_offsets.astype(np.int64),
        split=((lengths + 1) // 2).astype(np.int32),
        unit_offsets=unit_offsets.astype(np.int64),
        unit_tokens=unit_tokens.astype(np.int32),
        gold=(right if gold else np.full(len(right), -1)).astype(np.int32),
        teacher=logits.astype(np.float32) if teacher else None,
    )


def make_task_job(folder: Path, *, student: str = "bert", dropout: float = 0.0, **stage: Any) -> TaskJob:
    """Classification by a tiny student: 30 examples to learn from, 12 held out."""
    model_dir = save_student(folder / "start", name=student)
    set_dropout(model_dir, dropout)
    made_examples(30, seed=1).save(folder / "train.safetensors")
    made_examples(12, seed=2).save(folder / "dev.safetensors")
    return TaskJob(
        stage=TaskStageConfig.model_validate(TASK_STAGE | stage),
        settings=TrainingSettings(workers=2, zero_stage=2, micro_batch_tokens=24, checkpoint_every_s=1e-9),
        model_dir=model_dir,
        train_examples=folder / "train.safetensors",
        dev_examples=folder / "dev.safetensors",
        work_dir=folder / "work",
        output_dir=folder / "student",
        kind="classification",
        labels=LABELS,
        sets={"train": 20, "transfer": 10},
        accelerator="cpu",
        teacher="a made-up teacher",
        licence="Apache-2.0",
        start="three random layers",
    )


def taught_inside(job: TaskJob, folder: Path, *, states: Sequence[StateName] = (), **stage: Any) -> TaskJob:
    """The job with features of a stage: of a teacher of other weights, and of these states of it, which are made up."""
    directory = save_student(folder / "teacher", name="bert", seed=9)
    columns = tuple(range(len(LABELS)))
    teacher = TaughtInside(directory, "identity", "float32", stored_inside(directory), columns)
    made = task_variant(job, folder, stage=stage)
    files = {"train_examples": made.train_examples, "dev_examples": made.dev_examples}
    for seed, (name, path) in enumerate(files.items() if states else ()):
        assert path is not None
        examples = ExampleSet.load(path)
        shape = (len(examples), len(states), teacher.sizes.widths[0])
        values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        replace(examples, states=values, state_names=tuple(states)).save(folder / name)
        files[name] = folder / name
    return replace(made, taught=teacher, **files)


def task_variant(
    job: TaskJob, folder: Path, *, stage: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
) -> TaskJob:
    """The same start and data in directories of its own, with other fields of the stage and the settings."""
    return replace(
        job,
        stage=TaskStageConfig.model_validate(job.stage.model_dump() | (stage or {})),
        settings=TrainingSettings.model_validate(job.settings.model_dump() | (settings or {})),
        work_dir=folder / "work",
        output_dir=folder / "student",
    )


def set_dropout(model_dir: Path, dropout: float) -> None:
    """Have a student drop this share of its activations while it trains."""
    file = model_dir / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    names = {"hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"} & set(config)
    file.write_text(json.dumps(config | dict.fromkeys(names, dropout)), encoding="utf-8")
