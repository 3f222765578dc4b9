"""Sizes of models for a plan, as their files or the experiment's YAML tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.models import ModelShape, ModelSource
from configs.starts import InitConfig
from orchestration.inputs.random_models import make_random
from orchestration.inputs.shapes import PlannedShape, shape_at_hand, student_shape

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, tied_embeddings=True, max_positions=128)


def test_a_shape_is_known_without_fetching_anything(tmp_path: Path) -> None:
    made = make_random(SHAPE, seed=0, models_root=tmp_path / "models")
    assumed = ModelSource(hub="a/b", shape=SHAPE)
    known = shape_at_hand(assumed)
    assert known is not None and known.assumed and known.shape == SHAPE
    for source in (ModelSource(random=SHAPE), ModelSource(path=made, shape=SHAPE.model_copy(update={"layers": 9}))):
        known = shape_at_hand(source)
        assert known is not None and not known.assumed and known.shape.layers == 2
    assert shape_at_hand(ModelSource(hub="a/b")) is None
    assert shape_at_hand(ModelSource(path=tmp_path)) is None


@pytest.mark.parametrize("keep", [1, (0,)])
def test_a_derived_student_has_its_teachers_shape_with_fewer_layers(keep: int | tuple[int, ...]) -> None:
    teacher = PlannedShape("teacher", SHAPE, assumed=True)
    student = student_shape(InitConfig(keep_layers=keep), teacher)
    assert student is not None
    assert student.assumed
    assert student.shape == SHAPE.model_copy(update={"layers": 1})
