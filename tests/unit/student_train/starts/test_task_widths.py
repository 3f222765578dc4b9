"""Narrower encoders: what is dead goes first and changes nothing, and norms are put right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_students import FAMILIES, LABELS, PAIRED, rows_of, save_transformer

from configs.errors import ConfigError, DataError, ModelError
from configs.task_starts import TransformerStart
from student_train.models.task_model import load_task_student
from student_train.models.task_transformer import TransformerStudent, layers_of
from student_train.starts import task_widths
from student_train.starts.task_widths import Widths, narrow, planned_widths

ROWS = [np.array([2, *range(4, 4 + length), 3]) for length in (3, 6, 11, 20)]


def loaded(folder: Path, family: str, kind: Any = "classification") -> TransformerStudent:
    """Two layers of two heads of 8, 24 channels and 16 dimensions."""
    save_transformer(folder, family=family, kind=kind, layers=2)
    found = load_task_student(folder, kind=kind, labels=LABELS)
    assert isinstance(found, TransformerStudent)
    return found


def start(**widths: int) -> TransformerStart:
    return TransformerStart(kind="transformer", **widths)  # type: ignore[arg-type]


def logits(student: TransformerStudent) -> torch.Tensor:
    with torch.no_grad():
        return student(*rows_of([9, 4]))


@pytest.mark.parametrize("family", PAIRED)
def test_as_wide_as_the_teacher_is_the_teacher(tmp_path: Path, family: str) -> None:
    student = loaded(tmp_path, family)
    before = logits(student)
    narrow(student, start(mlp_channels=24, hidden_size=16, attention_heads=2), rows=ROWS)
    assert torch.equal(logits(student), before)


@pytest.mark.parametrize("family", PAIRED)
def test_channels_that_add_nothing_go_and_change_nothing(tmp_path: Path, family: str) -> None:
    student = loaded(tmp_path, family)
    with torch.no_grad():
        for place, layer in enumerate(layers_of(student.model)):
            _, mlp = task_widths._projections(layer)
            mlp.weight[:, place::3] = 0.0
    before = logits(student)
    narrow(student, start(mlp_channels=16), rows=ROWS)
    torch.testing.assert_close(logits(student), before, rtol=0, atol=1e-5)
    _, mlp = task_widths._projections(layers_of(student.model)[0])
    assert mlp.in_features == 16
    # One more has to be missed.
    narrow(student, start(mlp_channels=15), rows=ROWS)
    assert not torch.allclose(logits(student), before, atol=1e-5)


@pytest.mark.parametrize("family", PAIRED)
def test_the_head_that_adds_less_goes_in_each_layer(tmp_path: Path, family: str) -> None:
    student = loaded(tmp_path, family)
    before = []
    with torch.no_grad():
        for place, layer in enumerate(layers_of(student.model)):
            attention, _ = task_widths._projections(layer)
            attention.weight[:, 8 * place : 8 * place + 8] = 0.0
            before.append(attention.weight.clone())
    narrow(student, start(attention_heads=1, hidden_size=8), rows=ROWS)
    assert student.model.config.num_attention_heads == 1
    for place, layer in enumerate(layers_of(student.model)):
        attention, _ = task_widths._projections(layer)
        assert attention.weight.shape == (8, 8)
        columns = before[place][:, 8 * (1 - place) : 8 * (1 - place) + 8]
        # Some of its rows, the dimensions that stay, in their order.
        assert all(any(torch.equal(row, old) for old in columns) for row in attention.weight)


@pytest.mark.parametrize("kind", ["classification", "tagging", "extractive_qa"])
@pytest.mark.parametrize("family", PAIRED)
def test_every_kind_of_head_is_cut_with_its_body(tmp_path: Path, family: str, kind: Any) -> None:
    student = loaded(tmp_path, family, kind)
    narrow(student, start(attention_heads=1, hidden_size=8, mlp_channels=5), rows=ROWS)
    assert logits(student).isfinite().all()
    assert student.model.config.hidden_size == 8
    assert sum(map(len, student.groups())) == len(list(student.parameters()))


def test_norms_of_fewer_dimensions_say_what_those_of_the_teacher_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first norm, whose input is the teacher's but for what was cut."""

    def first_norm(student: TransformerStudent) -> torch.Tensor:
        with torch.no_grad():
            embeddings: torch.Tensor = student.model.bert.embeddings(torch.from_numpy(ROWS[-1])[None])[0]
        return embeddings

    teacher, mended, plain = (loaded(tmp_path / name, "bert") for name in "abc")
    with torch.no_grad():
        for each in (teacher, mended, plain):
            # Some dimensions are large and others small, as in real models, so that the cut changes the spread.
            each.model.bert.embeddings.word_embeddings.weight[:, ::2] *= 5.0
            each.model.bert.embeddings.word_embeddings.weight[:, ::4] += 2.0
    wanted = start(attention_heads=1, hidden_size=8)
    narrow(mended, wanted, rows=ROWS)
    monkeypatch.setattr(task_widths, "_mend_norms", lambda *_: None)
    narrow(plain, wanted, rows=ROWS)
    words = teacher.model.bert.embeddings.word_embeddings.weight
    kept = [
        next(old for old in range(16) if torch.equal(words[:, old], column))
        for column in mended.model.bert.embeddings.word_embeddings.weight.T
    ]
    assert kept == sorted(kept) and len(set(kept)) == 8
    expected = first_norm(teacher)[:, kept]
    off, off_plain = (float((first_norm(each) - expected).square().mean()) for each in (mended, plain))
    assert off < 0.5 * off_plain


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"attention_heads": 3}, "attention_heads=3 but the teacher has 2: keep at most 2"),
        ({"mlp_channels": 25}, "mlp_channels=25 but the teacher has 24"),
        ({"hidden_size": 17}, "hidden_size=17 but the teacher has 16"),
        (
            {"attention_heads": 1},
            "hidden_size=16 and attention_heads=1 but a head of this teacher is 8 wide: set hidden",
        ),
        ({"hidden_size": 9}, "such as attention_heads: 1 and hidden_size: 8"),
    ],
)
def test_widths_that_do_not_go_together_are_refused(widths: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned_widths(start(**widths), teacher=Widths(heads=2, channels=24, hidden=16))


def test_what_is_not_of_the_family_is_refused(tmp_path: Path) -> None:
    (family,) = set(FAMILIES) - set(PAIRED)
    with pytest.raises(ModelError, match=r"llama: tensor .* cannot be made narrower: set keep_layers alone"):
        narrow(loaded(tmp_path, family), start(mlp_channels=8), rows=ROWS)


def test_nothing_is_chosen_by_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokens to measure the teacher's widths on"):
        narrow(loaded(tmp_path, "bert"), start(mlp_channels=8), rows=[])
