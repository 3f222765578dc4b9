"""Untouched encoders: layers and widths that are kept with their head, shapes with one, and the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from general_jobs import save_encoder
from pydantic import TypeAdapter
from safetensors.torch import load_file
from task_students import WORDS, batch_of

from configs.task_starts import TaskStart
from student_train.models.general_student import has_word_head, load_general_student
from student_train.starts.general_starts import make_general_start

START: TypeAdapter[Any] = TypeAdapter(TaskStart)
SHAPE = {"layers": 2, "hidden": 8, "heads": 2, "mlp": 8}
ROWS = [np.array([2, *range(4, 12)]), np.array([2, 9, 8, 30])]


def made(root: Path, name: str, *, guesses: bool = True, bare: bool = False, **start: Any) -> Path:
    teacher = root / f"teacher-{bare}"
    if not teacher.exists():
        save_encoder(teacher, layers=4, guesses=not bare)
    begun = START.validate_python({"kind": "transformer", **start})
    return make_general_start(begun, seed=3, guesses=guesses, teacher_dir=teacher, out=root / name, rows=ROWS)


def test_every_second_layer_stays_with_embeddings_and_head(tmp_path: Path) -> None:
    ours = load_file(made(tmp_path, "half", keep_layers=2, layers_by="alternate") / "model.safetensors")
    theirs = load_file(tmp_path / "teacher-False/model.safetensors")
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name.replace("layer.1.", "layer.2.")]), name
    assert any(name.startswith("cls.predictions") for name in ours)


def test_a_model_without_head_has_none_and_is_cut_alike(tmp_path: Path) -> None:
    place = made(tmp_path, "bare", bare=True, keep_layers=1)
    assert not has_word_head(place) and load_general_student(place).sizes.layers == 1


@pytest.mark.parametrize("guesses", [True, False])
def test_a_shape_has_a_head_where_it_guesses(tmp_path: Path, guesses: bool) -> None:
    place = made(tmp_path, "shape", guesses=guesses, shape=SHAPE)
    assert has_word_head(place) == guesses
    again = made(tmp_path, "again", guesses=guesses, shape=SHAPE)
    assert (place / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


@pytest.mark.parametrize("bare", [True, False])
def test_widths_are_cut_with_the_head(tmp_path: Path, bare: bool) -> None:
    student = load_general_student(made(tmp_path, "narrow", bare=bare, hidden_size=8, attention_heads=1))
    assert student.sizes.widths == (8,) * 5 and student.guesses is not bare
    with torch.no_grad():
        assert student.read(batch_of([4], kind="tagging")).logits.shape == (1, 8 if bare else len(WORDS))
