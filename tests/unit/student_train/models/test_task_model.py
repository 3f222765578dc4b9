"""Students of tasks from disk and back, of every kind of network: what all of them promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from task_students import FAMILIES, LABELS, rows_of, save_transformer

from configs.errors import ModelError
from student_train.models.task_model import TaskStudent, load_task_student, write_task_student


@pytest.fixture(params=FAMILIES)
def student_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_transformer(tmp_path / "start", family=request.param)


def load(model_dir: Path) -> TaskStudent:
    return load_task_student(model_dir, kind="classification", labels=LABELS).eval()


def logits(student: TaskStudent, lengths: list[int], *, width: int | None = None, rubbish: int = 0) -> torch.Tensor:
    with torch.no_grad():
        return student(*rows_of(lengths, width=width, rubbish=rubbish))


def test_neither_neighbours_nor_padding_change_a_logit(student_dir: Path) -> None:
    student, lengths = load(student_dir), [7, 3, 12, 1]
    together = logits(student, lengths)
    assert together.shape == (4, 3)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(logits(student, [length])[0], together[row], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(student, lengths, width=30, rubbish=9), together, rtol=0, atol=1e-5)
    assert float((together[0] - together[1]).abs().max()) > 1e-3


def test_what_is_written_is_read_back(student_dir: Path, tmp_path: Path) -> None:
    student = load(student_dir)
    before = logits(student, [5, 9])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    weights = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    expected = logits(student, [5, 9])
    # What is written are the weights that are given, not those that the student happens to have.
    student = load(student_dir)
    out = tmp_path / "out"
    out.mkdir()
    write_task_student(student, weights, start=student_dir, folder=out)
    assert torch.equal(logits(load(out), [5, 9]), expected)
    assert float((before - expected).abs().max()) > 1e-3
    assert (out / "tokenizer.json").read_bytes() == (student_dir / "tokenizer.json").read_bytes()


def test_groups_hold_every_parameter_once(student_dir: Path) -> None:
    student = load(student_dir)
    groups = student.groups()
    ids = [id(parameter) for group in groups for parameter in group]
    assert len(ids) == len(set(ids)) == len(list(student.parameters()))
    assert all(groups)


def test_only_what_is_not_frozen_gets_a_gradient(student_dir: Path) -> None:
    student = load(student_dir)
    groups = student.groups()
    for group in groups[2:]:
        for parameter in group:
            parameter.requires_grad_(False)
    student(*rows_of([6, 4])).square().sum().backward()
    learning = [[parameter.grad is not None for parameter in group] for group in groups]
    assert all(map(all, learning[:2]))
    assert not any(map(any, learning[2:]))


def test_too_few_positions_are_refused(student_dir: Path) -> None:
    student = load(student_dir)
    assert logits(student, [min(student.max_tokens, 300)]).isfinite().all()
    if student.max_tokens < 100:
        with pytest.raises(ModelError, match=f"reads {student.max_tokens} tokens at most and max_tokens=100: lower"):
            load_task_student(student_dir, kind="classification", labels=LABELS, max_tokens=100)


def test_tasks_without_a_head_are_refused(student_dir: Path) -> None:
    with pytest.raises(ModelError, match="no task head does generation: choose a task of kind classification"):
        load_task_student(student_dir, kind="generation", labels=())
