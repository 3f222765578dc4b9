"""Two real gloo processes under DeepSpeed against one process of plain torch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from group_worker import Case, Plan, Results, build, run_group
from student_builders import VOCAB, records, tiny_llama
from torch import Tensor

from cache.records import TeacherRecord
from configs.schema import TrainingSettings
from configs.stages import LoraConfig, StageConfig
from student_train.feed.microbatch import collate
from student_train.models.decoder import StudentModule
from student_train.training import deepspeed_engine
from student_train.training.deepspeed_engine import ADAM_BETAS, ADAM_EPS, Snapshots

pytestmark = pytest.mark.group

STAGE = StageConfig(
    objective="kd",
    steps=4,
    dtype="float32",
    learning_rate=1e-3,
    weight_decay=0.1,
    ce_weight=0.2,
    gradient_clip=0.5,
)


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
    decoder = build(model_dir, stage=stage)
    module = StudentModule(decoder, stage=stage, vocab=VOCAB)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in parameters]
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
        torch.autograd.backward(mean)
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, stage.gradient_clip)))
        losses.append(float(loss.detach()))
        optimiser.step()
    for before, after in zip(start, parameters, strict=True):
        assert float((after.detach() - before).abs().max()) > 1e-3
    return losses, norms, {name: value.detach() for name, value in decoder.model.named_parameters()}


def both_ranks(jobs: list[Case], *, folder: Path) -> tuple[Results, Results]:
    """Every case one after the other in one worker group, as starting one costs more than the cases do."""
    leader, other = run_group("engine_steps", {"cases": jobs}, folder=folder, world_size=2)
    return leader, other


LAYOUTS = [
    {"zero_stage": zero, "offload": offload}
    for zero, offload in [
        *((zero, "none") for zero in range(4)),
        *((zero, "optimizer") for zero in (1, 2, 3)),
        (3, "all"),
    ]
]
"""Every way to cut up and to place the training state that the schema allows."""


def uneven_cases(folder: Path, layouts: list[dict[str, object]], *, tied: tuple[bool, ...]) -> list[Case]:
    models = [tiny_llama(folder / f"model-{ties}", tied=ties) for ties in tied]
    settings = [TrainingSettings.model_validate(layout) for layout in layouts]
    return [(model, STAGE, setting, uneven_plan()) for model in models for setting in settings]


def assert_equal_to_reference(cases: list[Case], results: Results) -> None:
    for (model_dir, stage, _, plan), (outcomes, weights) in zip(cases, results, strict=True):
        losses, norms, expected = reference(model_dir, plan, stage=stage)
        assert [outcome.sums[0] for outcome in outcomes] == pytest.approx(losses, rel=1e-5)
        assert [outcome.grad_norm for outcome in outcomes] == pytest.approx(norms, rel=1e-4)
        assert min(norms) > stage.gradient_clip  # so that clipping took part
        assert weights is not None
        assert weights.keys() == expected.keys()
        for name, value in expected.items():
            # Adam divides by the gradient's own size, so rounding in a gradient near zero shows: a hundredth of a step.
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5)


def broken(row: TeacherRecord, *, value: float) -> TeacherRecord:
    """The record with one log-probability that is NaN or infinite."""
    assert row.topk_logprobs is not None
    logprobs = row.topk_logprobs.copy()
    logprobs[-1, 0] = value
    return replace(row, topk_logprobs=logprobs)


def broken_cases(folder: Path, layouts: list[dict[str, object]], *, dtypes: tuple[str, ...]) -> list[Case]:
    """Pairs of cases: four good steps' worth without and with two bad ones in the middle."""
    model_dir = tiny_llama(folder / "model")
    rows = records(6)
    good: Plan = [[[rows[0:1], rows[1:2]], [rows[2:3]]], [[rows[3:4]], [rows[4:6]]]]
    # On one process alone; once in an early micro-batch and once in the last.
    bad = [
        [[rows[0:1]], [[broken(rows[1], value=math.nan)], rows[2:3]]],
        [[rows[3:4], [broken(rows[4], value=math.inf)]], [rows[5:6]]],
    ]
    cases: list[Case] = []
    for layout in layouts:
        for dtype in dtypes:
            stage = STAGE.model_copy(update={"dtype": dtype})
            settings = TrainingSettings.model_validate(layout)
            cases += [(model_dir, stage, settings, plan) for plan in (good, [good[0], *bad, good[1]])]
    return cases


def assert_broken_steps_left_no_trace(leader: Results, other: Results) -> None:
    for at in range(0, len(leader), 2):
        for outcomes, _ in (leader[at + 1], other[at + 1]):
            assert [outcome.skipped for outcome in outcomes] == [False, True, True, False]
        (clean, expected), (outcomes, weights) = leader[at : at + 2]
        assert [outcome.skipped for outcome in clean] == [False, False]
        assert outcomes[3].sums == clean[1].sums
        assert expected is not None
        assert weights is not None
        for name, value in expected.items():
            assert torch.equal(weights[name], value)


def test_zero_2_equals_one_process_and_drops_steps_that_are_not_finite(tmp_path: Path) -> None:
    zero_2 = LAYOUTS[2:3]
    even = uneven_cases(tmp_path, zero_2, tied=(True,))
    leader, other = both_ranks([*even, *broken_cases(tmp_path, zero_2, dtypes=("float32",))], folder=tmp_path)
    assert_equal_to_reference(even, leader[:1])
    assert_broken_steps_left_no_trace(leader[1:], other[1:])


@pytest.mark.slow
def test_every_layout_equals_one_process(tmp_path: Path) -> None:
    cases = uneven_cases(tmp_path, LAYOUTS, tied=(True, False))
    assert_equal_to_reference(cases, both_ranks(cases, folder=tmp_path)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "settings"),
    [({"lora": LoraConfig(rank=4, alpha=8.0), "gradient_clip": 0.3}, {}), ({}, {"gradient_checkpointing": True})],
    ids=["adapters", "recomputed activations"],
)
def test_variants_equal_one_process(tmp_path: Path, stage: dict[str, object], settings: dict[str, object]) -> None:
    cases = [
        (model, base.model_copy(update=stage), layout.model_copy(update=settings), plan)
        for model, base, layout, plan in uneven_cases(tmp_path, LAYOUTS[:4], tied=(True,))
    ]
    assert_equal_to_reference(cases, both_ranks(cases, folder=tmp_path)[0])


@pytest.mark.slow
def test_every_layout_drops_steps_that_are_not_finite(tmp_path: Path) -> None:
    cases = broken_cases(tmp_path, LAYOUTS, dtypes=("float32", "bfloat16"))
    assert_broken_steps_left_no_trace(*both_ranks(cases, folder=tmp_path))


@pytest.mark.parametrize("room", [True, False])
def test_a_checkpoint_holds_what_was_saved_whether_there_is_room_for_a_copy_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    monkeypatch.setattr(deepspeed_engine, "has_room", lambda *_, **__: room)
    state = {"weights": torch.arange(4.0), "moments": [torch.ones(2)], "version": "1"}
    writer, path = Snapshots(None), tmp_path / "state.pt"
    writer.save(state, str(path))
    assert path.exists() == (not room)
    # The training goes on.
    state["weights"].zero_()
    (file,) = writer.taken()
    assert writer.taken() == []
    assert (file.path, file.write is not None) == (path, room)
    if file.write is not None:
        file.write(path)
    found = torch.load(path)
    assert torch.equal(found["weights"], torch.arange(4.0)) and torch.equal(found["moments"][0], torch.ones(2))
    assert found["version"] == "1"
    assert torch.serialization.get_crc32_options()
