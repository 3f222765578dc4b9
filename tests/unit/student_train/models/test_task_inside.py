"""Terms about the inside of a task's teacher, against loops over texts and layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_jobs import made_examples
from task_students import LABELS, save_student
from torch import Tensor

from configs.task_features import FeatureTerm
from configs.task_stages import TaskStageConfig
from student_train import attention_mse, cosine, hidden_mse, patient
from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.job import TaughtInside
from student_train.models.task_inside import AnsweringTeacher, LiveTeacher, TaskInside
from student_train.models.task_model import load_task_student, stored_inside
from student_train.models.task_module import TaskModule
from student_train.models.tracing import note_attention


def loaded(folder: Path, name: str = "bert") -> Any:
    return load_task_student(folder, kind="classification", labels=LABELS)


@pytest.fixture
def teacher(tmp_path: Path) -> TaughtInside:
    """Three layers, as the student, with other weights."""
    directory = save_student(tmp_path / "teacher", name="bert", seed=9)
    return TaughtInside(directory, "identity", "float32", stored_inside(directory))


@pytest.fixture
def student(tmp_path: Path) -> Any:
    return loaded(save_student(tmp_path / "student", name="bert"))


def with_states(examples: ExampleSet, *names: tuple[int, Any], width: int) -> ExampleSet:
    drawn = np.random.default_rng(5).standard_normal((len(examples), len(names), width))
    return replace(examples, states=drawn.astype(np.float32), state_names=names)


def batch_of(examples: ExampleSet) -> TaskBatch:
    return collate_examples(examples, np.arange(len(examples)))


def summed(student: Any, taught: TaughtInside, batch: TaskBatch, *terms: dict[str, Any]) -> tuple[Tensor, TaskInside]:
    inside = TaskInside([FeatureTerm.model_validate(term) for term in terms], student=student, taught=taught, seed=1)
    loss, _ = inside(student.traced(batch), inside.taught(batch), batch)
    return loss, inside


def test_kept_states_are_found_by_their_names(student: Any, teacher: TaughtInside) -> None:
    examples = with_states(made_examples(4, seed=3), (3, "first"), (1, "mean"), (2, "first"), (1, "first"), width=16)
    batch = batch_of(examples)
    loss, _ = summed(student, teacher, batch, {"kind": "patient", "layers": [(1, 2), (2, 3)], "weight": 10.0})
    assert examples.states is not None
    with torch.no_grad():
        states = student.traced(batch).states
    ours = torch.stack([states[1][:, 0], states[2][:, 0]], dim=1)
    theirs = torch.from_numpy(examples.states[:, [2, 0]])
    torch.testing.assert_close(loss, 10.0 * patient(ours, theirs).sum())


def test_a_live_teacher_reads_what_the_student_reads(student: Any, teacher: TaughtInside) -> None:
    batch = batch_of(made_examples(4, seed=3))
    loss, inside = summed(student, teacher, batch, {"kind": "cosine", "weight": 2.0}, {"kind": "hidden_mse"})
    with torch.no_grad():
        ours, theirs = student.traced(batch), loaded(teacher.directory).traced(batch)
        valid = batch.attention_mask.bool()
        expected = 2.0 * cosine(ours.states[3][valid], theirs.states[3][valid]).sum()
        for layer in range(4):
            expected += hidden_mse(ours.states[layer][valid], theirs.states[layer][valid]).sum()
    torch.testing.assert_close(loss, expected)
    assert not list(inside.parameters()) and not inside.state_dict(), "the teacher is no part of it"


def test_the_head_of_a_live_teacher_is_its_own(tmp_path: Path, student: Any, teacher: TaughtInside) -> None:
    other = save_student(tmp_path / "other", name="bert", seed=9, labels=("words", "of", "another"))
    batch = batch_of(made_examples(4, seed=3))
    expected, _ = summed(student, teacher, batch, {"kind": "cosine"})
    found, _ = summed(student, replace(teacher, directory=other), batch, {"kind": "cosine"})
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("heads", ["each", "mean"])
def test_attention_is_compared_layer_by_layer(heads: str, student: Any, teacher: TaughtInside) -> None:
    batch = batch_of(made_examples(4, seed=3))
    loss, _ = summed(student, teacher, batch, {"kind": "attention_mse", "heads": heads})
    other = loaded(teacher.directory)
    note_attention(other.model)
    with torch.no_grad():
        both = student.traced(batch).scores, other.traced(batch).scores
    if heads == "mean":
        both = tuple(tuple(each.mean(dim=1, keepdim=True) for each in side) for side in both)  # type: ignore[assignment]
    expected = sum(attention_mse(a, b, batch.attention_mask.bool()).sum() for a, b in zip(*both, strict=True))
    torch.testing.assert_close(loss, expected)


def test_activations_computed_twice_give_attention_the_same_gradients(tmp_path: Path, teacher: TaughtInside) -> None:
    batch = batch_of(made_examples(4, seed=3))
    found = []
    for recomputed in (False, True):
        student = loaded(save_student(tmp_path / f"student-{recomputed}", name="bert")).train()
        if recomputed:
            student.recompute_activations()
        torch.manual_seed(0)  # of dropout
        loss, _ = summed(student, teacher, batch, {"kind": "attention_mse"}, {"kind": "cosine"})
        loss.backward()
        found.append({name: each.grad for name, each in student.named_parameters() if each.grad is not None})
    assert found[0].keys() == found[1].keys() and any("query" in name for name in found[0])
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_another_width_has_one_projection_a_pair_which_learns(tmp_path: Path, teacher: TaughtInside) -> None:
    student = loaded(save_student(tmp_path / "narrow", name="lstm"))
    batch = batch_of(with_states(made_examples(4, seed=3), (3, "first"), width=16))
    loss, inside = summed(student, teacher, batch, {"kind": "hidden_mse", "layers": "top", "place": "first"})
    ((name, projection),) = inside.named_parameters()
    assert (name, tuple(projection.shape)) == ("projection_0", (12, 16))
    loss.backward()
    assert projection.grad is not None and projection.grad.abs().sum() > 0
    assert batch.states is not None
    with torch.no_grad():
        expected = hidden_mse(student.traced(batch).states[-1], batch.states[:, 0], projection).sum()
    torch.testing.assert_close(loss, expected)


def test_sums_are_scaled_so_that_decisions_divide_them_into_means(student: Any, teacher: TaughtInside) -> None:
    batch = batch_of(made_examples(4, seed=3))
    terms = {"kind": "cosine"}, {"kind": "attention_mse"}
    plain = [summed(student, teacher, batch, term)[0] for term in terms]
    scaled = replace(batch, per_text=3.0, per_token=0.25)
    torch.testing.assert_close(summed(student, teacher, scaled, terms[0])[0], 0.25 * plain[0])
    torch.testing.assert_close(summed(student, teacher, scaled, terms[1])[0], 3.0 * plain[1])


def test_an_empty_batch_gives_zero_and_zero_gradients(tmp_path: Path, student: Any, teacher: TaughtInside) -> None:
    examples = with_states(made_examples(4, seed=3), (3, "first"), width=16)
    batch = collate_examples(examples, np.arange(0))
    terms = {"kind": "cosine"}, {"kind": "attention_mse"}, {"kind": "patient", "layers": "top"}
    loss, _ = summed(student, teacher, batch, *terms)
    loss.backward()
    assert float(loss.detach()) == 0.0
    gradients = [weight.grad for name, weight in student.named_parameters() if "classifier" not in name]
    assert any(grad is not None for grad in gradients)
    assert all(not grad.any() for grad in gradients if grad is not None)


def test_what_stands_at_padding_enters_nothing(student: Any, teacher: TaughtInside) -> None:
    batch = batch_of(made_examples(4, seed=3))
    rubbish = replace(batch, input_ids=torch.where(batch.attention_mask.bool(), batch.input_ids, 11))
    terms = {"kind": "cosine"}, {"kind": "hidden_mse"}, {"kind": "attention_mse"}
    torch.testing.assert_close(summed(student, teacher, batch, *terms)[0], summed(student, teacher, rubbish, *terms)[0])


def test_a_live_teacher_answers_in_the_order_of_the_task(student: Any, teacher: TaughtInside) -> None:
    live = LiveTeacher.load(teacher.directory, dtype="float32", student=student, notes=False)
    examples = made_examples(5, seed=3, teacher=False)
    batch, trace = AnsweringTeacher(live, (2, 0, 1)).answered(batch_of(examples))
    expected = loaded(teacher.directory).unit_logits(batch_of(examples)).detach()
    assert batch.teacher is not None
    torch.testing.assert_close(batch.teacher, expected[:, [2, 0, 1]])
    assert not batch.teacher.requires_grad
    torch.testing.assert_close(trace.logits, expected)


def test_a_live_teacher_teaches_what_it_would_have_been_kept_as(student: Any, teacher: TaughtInside) -> None:
    examples = made_examples(6, seed=4, teacher=False)
    answers = loaded(teacher.directory).unit_logits(batch_of(examples)).detach().numpy()
    live = LiveTeacher.load(teacher.directory, dtype="float32", student=student, notes=False)
    stage = TaskStageConfig(objective="soft_labels", temperature=2.0, epochs=1.0)
    kept = TaskModule(student, stage=stage)(batch_of(replace(examples, teacher=answers)))
    asked = TaskModule(
        student, stage=stage.model_copy(update={"teacher": "live"}), answering=AnsweringTeacher(live, (0, 1, 2))
    )
    loss, metrics = asked(batch_of(examples))
    torch.testing.assert_close(loss, kept[0])
    torch.testing.assert_close(metrics, kept[1])
    assert asked.state_dict().keys() == TaskModule(student, stage=stage).state_dict().keys()
