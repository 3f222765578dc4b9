"""A task student with its loss: sums over any split of a step, and parts that do not learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_jobs import made_examples
from task_students import LABELS, save_network, save_student, save_transformer
from torch import Tensor

from configs.errors import ConfigError
from configs.task import TaskKind
from configs.task_stages import TaskStageConfig
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.feed.task_steps import TaskFeed
from student_train.models.task_model import TaskStudent, load_task_student
from student_train.models.task_module import TaskModule, choose_what_learns, frozen_parts
from student_train.worker_group import WorkerGroup


def stage(**fields: Any) -> TaskStageConfig:
    return TaskStageConfig.model_validate({"objective": "hard_labels", "steps": 1} | fields)


def student_of(folder: Path, *, name: str = "bert", kind: TaskKind = "classification") -> TaskStudent:
    labels = ("first", "last") if kind == "extractive_qa" else LABELS
    if kind == "classification":
        save_student(folder, name=name)
    elif name == "lstm":
        save_network(folder, name=name, task=kind, labels=labels)
    else:
        save_transformer(folder, family=name, kind=kind, labels=labels)
    return load_task_student(folder, kind=kind, labels=labels)


def sums_of(module: TaskModule, batches: list[TaskBatch]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss and metric sums over micro-batches, and the summed gradient."""
    module.zero_grad()
    losses, metrics = zip(*(module(batch) for batch in batches), strict=True)
    loss = torch.stack(losses).sum()
    torch.autograd.backward(loss)
    grads = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    return loss.detach(), torch.stack(metrics).sum(dim=0), {name: grad.clone() for name, grad in grads.items()}


@pytest.mark.parametrize(
    ("name", "kind", "objective"),
    [
        ("bert", "classification", {"objective": "soft_labels", "temperature": 3.0, "gold_weight": 0.5}),
        ("llama", "classification", {"objective": "logit_mse"}),
        ("bag", "classification", {"objective": "hard_labels", "labels": "teacher"}),
        ("bert", "tagging", {"objective": "hard_labels"}),
        ("lstm", "tagging", {"objective": "soft_labels"}),
        ("bert", "extractive_qa", {"objective": "soft_labels", "gold_weight": 0.5}),
        ("lstm", "extractive_qa", {"objective": "hard_labels"}),
    ],
)
def test_ranks_and_micro_batches_sum_to_one_large_batch(
    tmp_path: Path, name: str, kind: TaskKind, objective: dict[str, Any]
) -> None:
    examples, rows = made_examples(13, seed=3, kind=kind), np.arange(13)
    module = TaskModule(student_of(tmp_path / "start", name=name, kind=kind), stage=stage(**objective))
    shares = [
        next(TaskFeed(examples, WorkerGroup(rank, 3, torch.device("cpu")), 24).steps([rows])).batches
        for rank in range(3)
    ]
    # A share without examples, as of a process that has fewer.
    split = [batch for share in shares for batch in share] + [collate_examples(examples, rows[:0])]
    assert len(split) > 4
    loss, metrics, grads = sums_of(module, split)
    expected_loss, expected_metrics, expected_grads = sums_of(module, [collate_examples(examples, rows)])
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(metrics, expected_metrics, rtol=1e-5, atol=1e-5)
    assert grads.keys() == expected_grads.keys()
    assert max(float(grad.abs().max()) for grad in grads.values()) > 1e-2
    for weight, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[weight], rtol=1e-4, atol=1e-4, msg=weight)


@pytest.mark.parametrize("name", ["bert", "llama", "lstm", "attention", "deep-bag"])
def test_an_empty_batch_reaches_every_weight_with_a_gradient_of_zero(tmp_path: Path, name: str) -> None:
    module = TaskModule(student_of(tmp_path / "start", name=name), stage=stage())
    loss, metrics, grads = sums_of(module, [collate_examples(made_examples(3, seed=1), np.empty(0, np.int64))])
    assert float(loss) == 0.0
    assert not metrics.any()
    assert grads.keys() == {weight for weight, _ in module.named_parameters()}
    assert not any(grad.any() for grad in grads.values())


def learning(student: TaskStudent) -> set[str]:
    return {name for name, weight in student.named_parameters() if weight.requires_grad}


def test_the_head_alone_or_layers_below_it_learn(tmp_path: Path) -> None:
    head, top = learned = [set[str](), set[str]()]
    for unfrozen in (0, 1):
        student = student_of(tmp_path / f"start-{unfrozen}")
        choose_what_learns(student, stage=stage(unfrozen=unfrozen))
        learned[unfrozen] |= learning(student)
    assert head and all("classifier" in name or "pooler" in name for name in head)
    assert top - head and all(".layer.2." in name for name in top - head)


def test_all_learns_all_and_more_layers_than_there_are_are_refused(tmp_path: Path) -> None:
    student = student_of(tmp_path / "start")
    choose_what_learns(student, stage=stage())
    assert learning(student) == {name for name, _ in student.named_parameters()}
    choose_what_learns(student, stage=stage(unfrozen=4))
    assert learning(student) == {name for name, _ in student.named_parameters()}
    with pytest.raises(ConfigError, match="unfrozen=5 counts layers below the head and this student has 4"):
        choose_what_learns(student, stage=stage(unfrozen=5))


def test_what_does_not_learn_is_as_sure_of_itself_as_the_exported_student(tmp_path: Path) -> None:
    student = student_of(tmp_path / "start")
    choose_what_learns(student, stage=stage(unfrozen=1))
    module = TaskModule(student, stage=stage(unfrozen=1)).train()
    by_name = dict(student.named_modules())
    assert {name for name, part in by_name.items() if name.endswith("dropout") and part.training} == {
        name
        for name in by_name
        if name.endswith("dropout") and (".layer.2." in name or name.startswith("model.dropout"))
    }
    assert all(part in set(by_name.values()) for part in frozen_parts(student))
    module.eval()
    assert not any(part.training for part in module.modules())


def test_adapters_learn_with_the_whole_head_and_nothing_else(tmp_path: Path) -> None:
    student = student_of(tmp_path / "start")
    torch.manual_seed(0)
    choose_what_learns(student, stage=stage(lora={"rank": 2}))
    learned = learning(student)
    heads = {name for name in learned if "lora" not in name}
    assert heads == {
        f"model.{part}.{kind}" for part in ("classifier", "bert.pooler.dense") for kind in ("weight", "bias")
    }
    assert {name.split(".lora_")[0] for name in learned - heads} == {
        name.removesuffix(".base_layer.weight") for name, _ in student.named_parameters() if "base_layer.weight" in name
    }
    with pytest.raises(ConfigError, match="has none below its head: remove lora"):
        choose_what_learns(student_of(tmp_path / "bag", name="bag"), stage=stage(lora={"rank": 2}))
