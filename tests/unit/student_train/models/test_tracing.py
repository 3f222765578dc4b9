"""What is seen inside models: states at places of texts, and attention scores as BERT's own code computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_jobs import made_examples
from task_students import LABELS, save_student

from configs import ModelError
from configs.task_features import Place
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.models.task_model import load_task_student, stored_inside
from student_train.models.tracing import note_attention


def batch_of(count: int = 5) -> TaskBatch:
    return collate_examples(made_examples(count, seed=3), np.arange(count))


def student_of(folder: Path, name: str = "bert") -> Any:
    return load_task_student(save_student(folder / "student", name=name), kind="classification", labels=LABELS)


@pytest.mark.parametrize(
    "name", ["bert", "distilbert", "roberta", "llama", "mpnet", "lstm", "attention", "bag", "deep-bag"]
)
def test_looking_inside_changes_no_answer_and_finds_the_sizes_that_are_stated(name: str, tmp_path: Path) -> None:
    student, batch = student_of(tmp_path, name), batch_of()
    with torch.no_grad():
        trace = student.traced(batch)
        torch.testing.assert_close(trace.logits, student.unit_logits(batch))
    assert student.sizes == stored_inside(tmp_path / "student")
    assert tuple(states.shape[-1] for states in trace.states) == student.sizes.widths and trace.scores == ()
    assert trace.state(student.sizes.layers, "first", batch).shape == (5, student.sizes.widths[-1])


def test_states_are_taken_where_the_teachers_are(tmp_path: Path) -> None:
    student, batch = student_of(tmp_path), batch_of()
    lengths = batch.attention_mask.sum(dim=1).tolist()
    with torch.no_grad():
        trace = student.traced(batch)
        rows = [trace.states[2][row, :length] for row, length in enumerate(lengths)]
    expected: dict[Place, list[torch.Tensor]] = {
        "first": [row[0] for row in rows],
        "last": [row[-1] for row in rows],
        "mean": [row.mean(dim=0) for row in rows],
    }
    for place, states in expected.items():
        torch.testing.assert_close(trace.state(2, place, batch), torch.stack(states))
    torch.testing.assert_close(trace.state(2, "all", batch), torch.cat(rows))


def test_an_empty_batch_has_no_text_and_no_token(tmp_path: Path) -> None:
    examples = made_examples(3, seed=3)
    batch = collate_examples(examples, np.arange(0))
    with torch.no_grad():
        trace = student_of(tmp_path).traced(batch)
    assert not batch.tokens.any()
    assert len(trace.state(1, "first", batch)) == len(trace.state(1, "all", batch)) == 0


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "llama"])
def test_scores_are_those_whose_softmax_the_models_own_code_gives(name: str, tmp_path: Path) -> None:
    student, batch = student_of(tmp_path, name), batch_of()
    student.model.set_attn_implementation("eager")
    inputs = batch.input_ids, batch.attention_mask, batch.segment_ids
    with torch.no_grad():
        own = student._output(*inputs, output_attentions=True).attentions
        before = student.unit_logits(batch)
        note_attention(student.model)
        trace = student.traced(batch)
    torch.testing.assert_close(trace.logits, before)
    assert len(trace.scores) == student.sizes.layers == len(own)
    for scores, weights in zip(trace.scores, own, strict=True):
        seen = weights > 0
        found = torch.where(seen, scores, -torch.inf).softmax(dim=-1)
        rows = batch.attention_mask.bool()[:, None, :, None].expand_as(weights)
        torch.testing.assert_close(found[rows], weights[rows])


def test_attention_that_is_code_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="mpnet computes attention in a way of its own"):
        note_attention(student_of(tmp_path, "mpnet").model)
