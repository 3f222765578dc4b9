"""Two real gloo processes under DeepSpeed against one process of plain torch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from gang_worker import run_gang
from student_builders import VOCAB, records, tiny_llama
from torch import Tensor

from cache.records import TeacherRecord
from configs.schema import StageConfig, TrainingSettings
from student_train.batching import collate
from student_train.deepspeed_engine import ADAM_BETAS, ADAM_EPS
from student_train.model import StudentModule, load_decoder

STAGE = StageConfig(
    objective="kd",
    steps=4,
    dtype="float32",
    learning_rate=1e-3,
    weight_decay=0.1,
    ce_weight=0.2,
    gradient_clip=0.5,
)
Plan = list[list[list[list[TeacherRecord]]]]


def uneven_plan() -> Plan:
    """Steps with 3 + 1, 1 + 2, 2 + 0 and 1 + 1 micro-batches: never the same number, once none at all."""
    rows = records(16)
    return [
        [[rows[0:2], rows[2:3], rows[3:4]], [rows[4:5]]],
        [[rows[5:6]], [rows[6:7], rows[7:10]]],
        [[rows[10:11], rows[11:12]], []],
        [[rows[12:14]], [rows[14:16]]],
    ]


def reference(model_dir: Path, plan: Plan, *, stage: StageConfig) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Losses, gradient norms and weights of plain AdamW on the mean over all response tokens of each step."""
    decoder = load_decoder(model_dir, dtype=torch.float32)
    module = StudentModule(decoder, stage=stage, vocab=VOCAB)
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=stage.learning_rate, betas=ADAM_BETAS, eps=ADAM_EPS)
    losses, norms = [], []
    for step in plan:
        rows = [row for batches in step for part in batches for row in part]
        loss, _ = module(collate(rows, with_targets=True))
        mean = loss / sum(row.response_len for row in rows)
        optimiser.zero_grad()
        mean.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, stage.gradient_clip)))
        losses.append(float(loss.detach()))
        optimiser.step()
    return losses, norms, {name: value.detach() for name, value in decoder.model.named_parameters()}


def assert_equals_reference(folder: Path, *, zero_stage: int, tied: bool) -> None:
    model_dir = tiny_llama(folder / "model", tied=tied)
    plan = uneven_plan()
    settings = TrainingSettings.model_validate({"zero_stage": zero_stage})
    outcomes, weights = run_gang(
        "engine_steps", (model_dir, STAGE, settings, VOCAB, plan), folder=folder / "gang", world_size=2
    )[0]
    losses, norms, expected = reference(model_dir, plan, stage=STAGE)
    assert [outcome.sums[0] for outcome in outcomes] == pytest.approx(losses, rel=1e-5)
    assert [outcome.grad_norm for outcome in outcomes] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > STAGE.gradient_clip  # so that clipping took part
    assert weights.keys() == expected.keys()
    start = load_decoder(model_dir, dtype=torch.float32).model.state_dict()
    for name, value in expected.items():
        assert float((value - start[name]).abs().max()) > 1e-3
        # Adam divides by the gradient's own size, so rounding in a gradient near zero shows: a hundredth of one step.
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5)


def test_zero_2_equals_one_process(tmp_path: Path) -> None:
    assert_equals_reference(tmp_path, zero_stage=2, tied=True)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_every_zero_stage_equals_one_process(tmp_path: Path, zero_stage: int, tied: bool) -> None:
    assert_equals_reference(tmp_path, zero_stage=zero_stage, tied=tied)
