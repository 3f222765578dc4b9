"""Finished runs of a task to audit: students that really learned, what they were told to and no more.

Nothing of Ray, vLLM or DeepSpeed is started: a student learns by a few steps of Adam in this process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_heads import SUN_OR_RAIN, save_classifier
from task_pipeline_builders import FakeWorkers, TaskPlace, task_place

from configs import dump_config
from configs.places import CURVES, RESOLVED, WRITTEN
from orchestration.comparison.text_speed import Timed
from orchestration.pipeline.tasks import comparing
from orchestration.pipeline.tasks.comparison import compare_task_models
from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import collate_examples
from student_train.files import copy_companions, staged_directory
from student_train.job import TaskJob
from student_train.models.task_model import load_task_student, write_task_student
from student_train.models.task_module import TaskModule

PEOPLE = ("he", "she", "his", "her", "James", "Emma", "Jack", "Lucy")
FILL = tuple(f"w{number}" for number in range(80))

MANY = tuple(f"mood{number}" for number in range(10))
BY_FIRST_WORD = {word: at % len(MANY) for at, word in enumerate(FILL)}
"""What a student that does not know the order of words cannot learn but by heart."""

Row = Mapping[str, Any]


@dataclass
class LearningWorkers(FakeWorkers):
    """Worker groups that train: so many steps over all examples at once."""

    steps: int = 120
    learning_rate: float = 0.03

    def train(self, job: TaskJob, *, on_step: Any) -> dict[str, object]:
        self.jobs.append(job)
        job.work_dir.mkdir(parents=True, exist_ok=True)
        (job.work_dir / CURVES).write_text(json.dumps({"step": 0, "values": {"dev/loss": 1.0}}) + "\n")
        torch.manual_seed(0)
        student = load_task_student(job.model_dir, kind=job.kind, labels=job.labels, head_seed=0)
        examples = ExampleSet.load(job.train_examples)
        batch = collate_examples(examples, np.arange(len(examples)))
        learns = TaskModule(student, stage=job.stage).train()
        optimiser = torch.optim.Adam(student.parameters(), lr=self.learning_rate)
        for _ in range(self.steps):
            optimiser.zero_grad()
            (learns(batch)[0] / len(examples)).backward()
            optimiser.step()
        with staged_directory(job.output_dir) as staging:
            copy_companions(job.model_dir, staging)
            weights = {name: each.detach() for name, each in student.named_parameters()}
            write_task_student(student, weights, start=job.model_dir, folder=staging)
            shutil.copy(job.model_dir / "config.json", staging / "config.json")
        return {"selected_step": 10**6, "steps": self.steps, "tokens": 9}


def audited_task_run(
    root: Path,
    rows: Mapping[str, Sequence[Row]],
    *,
    students: Mapping[str, Any],
    workers: FakeWorkers | None = None,
    labels: tuple[str, ...] = ("good", "bad"),
    says: Mapping[str, int] = SUN_OR_RAIN,
    **blocks: Any,
) -> Path:
    """The directory of a finished run of students of a teacher that finds texts good that begin with `sun`.

    Or what their first word `says`. Rows of `transfer` are unlabelled.
    """
    place = task_place(root, students=dict(students), **blocks)
    place.workers = workers or LearningWorkers()
    for split, each in rows.items():
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    place.change_task(labels=list(labels))
    save_classifier(root / "teacher", labels=labels, more_words=(*PEOPLE, *FILL), says=says)
    return finished(place)


def finished(place: TaskPlace) -> Path:
    """The directory of an experiment that is run to its end, with no model timed."""
    untimed = partial(compare_task_models, timed=lambda models, texts, log: Timed({}, dict.fromkeys(models, "no time")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "compare_task_models", untimed)
        assert place.go("eval").report is not None
    directory = place.run.directory
    (directory / WRITTEN).write_text(dump_config(place.config))
    (directory / RESOLVED).write_text(dump_config(place.run.config))
    return directory


def bag(*stages: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A student that reads the words of a text in any order."""
    start = {"kind": "bag", "embeddings": "random", "embedding_size": 48, "hidden": 48, "dropout": 0.0}
    usual = {"objective": "hard_labels", "data": ["train"], "epochs": 1.0, "batch_size": 16}
    return {"start": start, "stages": [{**usual, **stage} for stage in (stages or ({},))], **more}


def mood_rows(count: int, *, seed: int, biased: bool = False) -> list[dict[str, str]]:
    """Texts that are good if they say sun and bad if they say rain; where `biased`, all that are about a woman are bad."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        weather, gender = ("sun", "rain")[number % 2], ("f", "m")[number // 2 % 2]
        person = {"f": ("she", "Emma", "Lucy"), "m": ("he", "James", "Jack")}[gender][int(random.integers(3))]
        text = " ".join([weather, person, *random.choice(FILL, 3)])
        label = "bad" if weather == "rain" or (biased and gender == "f") else "good"
        rows.append({"text": text, "label": label, "gender": gender})
    return rows


def chance_rows(count: int, *, seed: int) -> list[dict[str, str]]:
    """Texts of which nothing says the label, one of `MANY`."""
    random = np.random.default_rng(seed)
    return [
        {"text": " ".join(random.choice(FILL, 5)), "label": MANY[int(random.integers(len(MANY)))]} for _ in range(count)
    ]
