"""Shapes of models for planning: read from their files, or assumed from the experiment's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from configs.architecture import read_architecture
from configs.model_files import CONFIG
from configs.models import ModelShape, ModelSource
from configs.stages import StudentConfig
from configs.starts import InitConfig
from student_train.starts.sizes import planned_shape


@dataclass(frozen=True, slots=True)
class PlannedShape:
    """A model's sizes for planning; `assumed` when they come from the YAML and no file was seen."""

    label: str
    shape: ModelShape
    assumed: bool


def shape_at_hand(source: ModelSource) -> PlannedShape | None:
    """The shape that is known without fetching anything, or None."""
    if source.random is not None:
        return PlannedShape(source.label, source.random, assumed=False)
    if source.path is not None and (source.path / CONFIG).exists():
        return PlannedShape(source.label, read_architecture(source.path).shape, assumed=False)
    if source.shape is not None:
        return PlannedShape(source.label, source.shape, assumed=True)
    return None


def student_shapes(students: Mapping[str, StudentConfig], *, teacher: PlannedShape) -> dict[str, PlannedShape | None]:
    """The shapes that students will have, by name; see `student_shape`."""
    return {name: student_shape(student.init, teacher) for name, student in students.items()}


def student_shape(init: InitConfig, teacher: PlannedShape) -> PlannedShape | None:
    """The shape a student will have; None when its own model is neither at hand nor described.

    Raises:
        ConfigError: it is derived from more than the teacher has.
    """
    if init.model is not None:
        return shape_at_hand(init.model)
    shape = planned_shape(init, teacher=teacher.shape)
    narrower = f", {shape.hidden} wide, {shape.heads} heads, {shape.mlp} channels" if init.narrows else ""
    return PlannedShape(f"{teacher.label}, {shape.layers} layers{narrower}", shape, teacher.assumed)
