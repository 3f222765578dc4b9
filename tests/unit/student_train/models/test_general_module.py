"""Student, teacher and loss of a general stage: what is added up, what a teacher that says the same costs, padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from general_jobs import GENERAL_STAGE, plain_examples, save_encoder
from task_students import WORDS

from configs.task_stages import TaskStageConfig
from student_train.feed.hiding import Hiding
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.losses.metrics import METRICS
from student_train.models.general_module import GeneralModule
from student_train.models.general_student import GeneralTeacher, load_general_student
from student_train.models.inside import Inside
from student_train.models.tracing import note_attention

ROWS = np.array([3, 5, 8])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "student": save_encoder(folder / "student", seed=2),
        "teacher": save_encoder(folder / "teacher", seed=9),
        "bare": save_encoder(folder / "bare", seed=4, guesses=False),
    }


def batch(rows: np.ndarray = ROWS) -> TaskBatch:
    hiding = Hiding(mask=WORDS.index("w29"), tokens=np.arange(4, 30), seed=1, epoch=0)
    return hiding.hide(collate_examples(plain_examples(12, seed=2), rows), rows)


def module(student: Path, teacher: Path, **stage: Any) -> GeneralModule:
    config = TaskStageConfig.model_validate(GENERAL_STAGE | stage)
    ours, theirs = load_general_student(student), load_general_student(teacher)
    for each in (ours, theirs):
        note_attention(each.model)
    inside = Inside(config.features, student=ours.sizes, teacher=theirs.sizes, seed=0) if config.features else None
    reads = GeneralTeacher(theirs) if config.reads_inside else None
    return GeneralModule(ours, stage=config, vocab=len(WORDS), inside=inside, teacher=reads)


def value(sums: torch.Tensor, name: str) -> float:
    return float(sums[METRICS.index(name)])


def test_the_loss_is_its_weighted_parts(places: dict[str, Path]) -> None:
    with torch.no_grad():
        loss, sums = module(places["student"], places["teacher"])(batch())
        soft, _ = module(places["student"], places["teacher"], lm_weight=0.0, features=[])(batch())
    terms = value(sums, "cosine") + 0.5 * value(sums, "hidden_mse") + value(sums, "attention_mse")
    whole = soft.item() + 2.0 * value(sums, "ce") + terms + value(sums, "patient")
    assert loss.item() == pytest.approx(whole, rel=1e-5) == value(sums, "loss")
    assert min(value(sums, name) for name in ("cosine", "hidden_mse", "attention_mse", "patient")) > 0


def test_a_teacher_that_is_the_student_costs_nothing_and_teaches_nothing(places: dict[str, Path]) -> None:
    same = [[1, 1], [2, 2], [3, 3]]
    terms = [{"kind": kind, "layers": same} for kind in ("cosine", "hidden_mse", "attention_mse", "patient")]
    made = module(places["student"], places["student"], lm_weight=0.0, features=terms)
    loss, _ = made(batch())
    loss.backward()
    assert abs(loss.item()) < 1e-4
    gradients = [weight.grad for weight in made.parameters() if weight.grad is not None]
    assert gradients and max(float(each.abs().max()) for each in gradients) < 1e-3


def test_padding_and_empty_batches_change_nothing(places: dict[str, Path]) -> None:
    made = module(places["student"], places["teacher"])
    plain = batch()
    wider = torch.nn.functional.pad
    width = plain.input_ids.shape[1]
    moved = plain.units // width * (width + 3) + plain.units % width
    padded = replace(
        plain,
        units=moved,
        input_ids=wider(plain.input_ids, (0, 3), value=7),
        attention_mask=wider(plain.attention_mask, (0, 3)),
        segment_ids=wider(plain.segment_ids, (0, 3)),
    )
    with torch.no_grad():
        assert made(padded)[0].item() == pytest.approx(made(plain)[0].item(), rel=1e-5)
    loss, sums = made(batch(ROWS[:0]))
    loss.backward()
    assert loss.item() == 0.0 and float(sums.abs().sum()) == 0.0
    assert all(weight.grad is not None and not weight.grad.any() for weight in made.parameters())


def test_a_model_without_a_head_learns_what_is_inside_its_teacher(places: dict[str, Path]) -> None:
    made = module(
        places["bare"],
        places["teacher"],
        objective="features", lm_weight=1.0, soft_weight=0.0, temperature=1.0,
        features=[{"kind": "hidden_mse"}, {"kind": "attention_mse"}],
    )  # fmt: skip
    loss, sums = made(batch())
    loss.backward()
    assert loss.item() == pytest.approx(value(sums, "hidden_mse") + value(sums, "attention_mse"), rel=1e-5)
    learned = {name for name, weight in made.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert not any("pooler" in name for name in learned) and any("layer.2" in name for name in learned)


def test_a_teacher_has_no_weight_in_what_is_trained(places: dict[str, Path]) -> None:
    made = module(places["student"], places["teacher"])
    ours = {name for name, _ in load_general_student(places["student"]).named_parameters()}
    assert {name.removeprefix("student.") for name, _ in made.named_parameters()} == ours
