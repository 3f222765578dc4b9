"""The directory of an exported task student, and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from task_jobs import TASK_STAGE
from task_students import LABELS, save_student

from configs.task_stages import TaskStageConfig
from student_train.job import StepMetrics
from student_train.models.task_export import TaskCard, export_task_student, task_card_text
from student_train.models.task_model import load_task_student

MEASURED = (StepMetrics(0, {"dev/loss": 3.5, "dev/accuracy": 0.25}), StepMetrics(2, {"dev/loss": 2.25}))


def card(**fields: Any) -> TaskCard:
    known: dict[str, Any] = {
        "teacher": "a teacher",
        "licence": "MIT",
        "combined": "",
        "start": "three random layers",
        "stage": TaskStageConfig.model_validate(TASK_STAGE),
        "sets": {"train": 1000, "transfer": 20},
        "digest": "ab12",
        "steps": 4,
        "selected_step": 2,
        "measured": MEASURED,
    }
    return TaskCard(**known | fields)


@pytest.mark.parametrize("name", ["bert", "lstm"])
def test_an_export_is_a_student_again_with_a_card(tmp_path: Path, name: str) -> None:
    start = save_student(tmp_path / "start", name=name)
    student = load_task_student(start, kind="classification", labels=LABELS)
    weights = {name: weight.detach() + 1.0 for name, weight in student.named_parameters()}
    out = export_task_student(student, weights, start=start, out=tmp_path / "out", card=card())
    again = load_task_student(out, kind="classification", labels=LABELS)
    assert all(torch.equal(weight, weights[name]) for name, weight in again.named_parameters())
    text = (out / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n") and text.count("# Student of a teacher") == 1
    # A network over embeddings needs a word on how it is loaded.
    assert ("load_file" in text) == (name == "lstm")
    assert not list(tmp_path.glob(".staging-*"))


def test_the_card_says_where_the_student_comes_from(tmp_path: Path) -> None:
    student = load_task_student(save_student(tmp_path / "start", name="bert"), kind="classification", labels=LABELS)
    _, front, text = task_card_text(card(), student=student).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "a teacher",
        "license": "mit",
        "pipeline_tag": "text-classification",
        "tags": ["distillation", "stillroom", "soft_labels"],
    }
    for said in (
        "A student for classification with 3 labels, trained for 4 steps",
        "the weights after step 2 (`select: dev_accuracy`)",
        "Start: three random layers",
        "Objective: `soft_labels`, the teacher's distribution at temperature 2, gold labels at weight 0.25",
        "Data: 1,000 examples of train, 20 examples of transfer",
        "Examples (SHA-256): `ab12`",
        "learning_rate 0.003, schedule cosine, warmup_steps 2",
        "unfrozen all",
        "| dev/loss | 3.5000 | 2.2500 |",
    ):
        assert said in text
    lora = TaskStageConfig.model_validate(TASK_STAGE | {"lora": {"rank": 4}})
    assert "LoRA of rank 4 and alpha 32, merged, beside the whole head" in task_card_text(
        card(stage=lora, licence=None), student=student
    )


def test_a_card_names_all_teachers_with_their_weights_and_duties(tmp_path: Path) -> None:
    student = load_task_student(save_student(tmp_path / "start", name="bert"), kind="classification", labels=LABELS)
    text = task_card_text(
        card(
            teacher="some/base + some/large",
            licence="teacher: apache-2.0; large: mit",
            combined="teachers are mixed in probability space: teacher (some/base) with weight 0.75; large (some/large) "
            "with weight 0.25",
        ),
        student=student,
    )
    _, front, words = text.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["base_model"] == ["some/base", "some/large"] and said["license"] == "other"
    assert (
        "- Teacher: some/base + some/large (teachers are mixed" in words and "large (some/large) with weight" in words
    )
    assert "Teacher's licence: teacher: apache-2.0; large: mit." in words
