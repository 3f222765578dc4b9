"""Which layers of a teacher stay, and that what stays computes what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_students import FAMILIES, LABELS, rows_of, save_transformer
from transformers import AlbertConfig, AlbertForSequenceClassification

from configs.errors import DataError, ModelError
from student_train.models.task_model import load_task_student
from student_train.models.task_transformer import TransformerStudent, layers_of
from student_train.starts.task_layers import keep_only, layer_influence


def loaded(folder: Path, family: str = "bert", *, layers: int = 4) -> TransformerStudent:
    save_transformer(folder, family=family, layers=layers)
    found = load_task_student(folder, kind="classification", labels=LABELS)
    assert isinstance(found, TransformerStudent)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_influence_is_how_far_a_layer_turns_its_input(tmp_path: Path, family: str) -> None:
    student = loaded(tmp_path, family)
    rows = [np.array([2, 5, 9, 3]), np.array([2, 7, 3], dtype=np.int32)]
    found = layer_influence(student, rows)
    inputs: dict[int, list[Any]] = {place: [] for place in range(4)}
    for place, layer in enumerate(layers_of(student.model)):
        # An independent look at the same layers, row by row.
        layer.register_forward_pre_hook(
            lambda _, args, named, place=place: inputs[place].append((args or (named["hidden_states"],))[0].detach()),
            with_kwargs=True,
        )
    body = student.model.base_model
    outputs = []
    for row in rows:
        with torch.no_grad():
            outputs.append(body(input_ids=torch.tensor(row.astype(np.int64))[None]))
    for place in range(3):
        before, after = torch.cat(inputs[place], dim=1)[0].numpy(), torch.cat(inputs[place + 1], dim=1)[0].numpy()
        cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        assert found[place] == pytest.approx(float(1.0 - cosine.mean()), abs=1e-5)
    assert found[3] > 0.0


def test_nothing_is_measured_on_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokens to measure"):
        layer_influence(loaded(tmp_path), [])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stays_is_unchanged(tmp_path: Path, family: str) -> None:
    student, teacher = loaded(tmp_path, family), loaded(tmp_path, family)
    keep_only(student, (0, 2))
    whole, cut = layers_of(teacher.model), layers_of(student.model)
    assert len(cut) == student.model.config.num_hidden_layers == 2
    for place, old in enumerate((0, 2)):
        for weight, kept in zip(whole[old].parameters(), cut[place].parameters(), strict=True):
            assert torch.equal(weight, kept)
    assert student(*rows_of([5])).isfinite().all()
    assert sum(map(len, student.groups())) == len(list(student.parameters()))


def test_a_teacher_with_shared_layers_is_refused(tmp_path: Path) -> None:
    config = AlbertConfig(
        vocab_size=36,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
    )
    student = TransformerStudent(
        AlbertForSequenceClassification(config), kind="classification", labels=("a", "b"), pad=0, segments=True
    )
    with pytest.raises(
        ModelError, match="albert: has 1 layers of its own where its config says 4, so none can be taken"
    ):
        keep_only(student, (0, 1))
