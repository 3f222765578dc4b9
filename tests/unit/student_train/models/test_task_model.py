"""Students of tasks from disk and back, of every kind of network: what all of them promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from task_students import FAMILIES, LABELS, NETWORKS, OTHERS, rows_of, save_student

from configs.errors import ModelError
from student_train.models.task_model import (
    TaskStudent,
    load_task_student,
    longest_text,
    stored_task,
    write_task_student,
)


@pytest.fixture(params=(*FAMILIES, *OTHERS, *NETWORKS))
def student_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_student(tmp_path / "start", name=request.param)


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
    assert len(groups) > 1
    for group in groups[2:]:
        for parameter in group:
            parameter.requires_grad_(False)
    student(*rows_of([6, 4])).square().sum().backward()
    learning = [[parameter.grad is not None for parameter in group] for group in groups]
    assert all(map(all, learning[:2]))
    assert not any(map(any, learning[2:]))


def test_too_few_positions_are_refused(student_dir: Path) -> None:
    student = load(student_dir)
    assert longest_text(student_dir) == student.max_tokens
    assert logits(student, [min(student.max_tokens, 300)]).isfinite().all()
    if student.max_tokens < 100:
        with pytest.raises(ModelError, match=f"reads {student.max_tokens} tokens at most and max_tokens=100: lower"):
            load_task_student(student_dir, kind="classification", labels=LABELS, max_tokens=100)


def test_tasks_without_a_head_are_refused(student_dir: Path) -> None:
    with pytest.raises(ModelError, match="no task head does generation: choose a task of kind classification"):
        load_task_student(student_dir, kind="generation", labels=())


def test_labels_in_another_order_are_brought_into_that_of_the_task(student_dir: Path, tmp_path: Path) -> None:
    turned = load_task_student(student_dir, kind="classification", labels=("yes", "no", "maybe"))
    expected = logits(load(student_dir), [5, 9])[:, [2, 0, 1]]
    torch.testing.assert_close(logits(turned, [5, 9]), expected, rtol=0, atol=1e-5)
    (tmp_path / "out").mkdir()
    write_task_student(turned, dict(turned.named_parameters()), start=student_dir, folder=tmp_path / "out")
    torch.testing.assert_close(logits(load(tmp_path / "out"), [5, 9]), expected[:, [1, 2, 0]], rtol=0, atol=1e-5)


def test_other_labels_are_refused(student_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"its head knows 3 labels \(no, maybe, yes\) and the task has 2 labels"):
        load_task_student(student_dir, kind="classification", labels=("no", "yes"))


def test_a_student_in_bfloat16_says_about_the_same(student_dir: Path) -> None:
    rough = load_task_student(student_dir, kind="classification", labels=LABELS, dtype=torch.bfloat16)
    exact = logits(load(student_dir), [6, 4])
    assert {parameter.dtype for parameter in rough.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(rough, [6, 4]).float(), exact, rtol=0.1, atol=0.1)


def test_a_directory_says_what_its_head_is_for(student_dir: Path) -> None:
    assert stored_task(student_dir) == ("classification", LABELS)
