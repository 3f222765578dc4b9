"""Shapes of models: read from their files, or assumed from the experiment's YAML. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.model_files import CONFIG
from configs.models import ModelSource
from configs.schema import ModelShape


@dataclass(frozen=True, slots=True)
class PlannedShape:
    """A model's sizes for planning; `assumed` when they come from the YAML and no file was seen."""

    label: str
    shape: ModelShape
    assumed: bool


def read_shape(model_dir: Path) -> ModelShape:
    """Sizes from the `config.json` of a model's directory.

    Raises:
        ModelError: the file cannot be read, or does not describe a decoder.
    """
    # Imported late: it brings torch, and whoever plans with assumed shapes does without.
    from student_train.models.architecture import read_architecture

    return read_architecture(model_dir).shape


def shape_at_hand(source: ModelSource) -> PlannedShape | None:
    """The shape that is known without fetching anything, or None."""
    if source.random is not None:
        return PlannedShape(source.label, source.random, assumed=False)
    if source.path is not None and (source.path / CONFIG).exists():
        return PlannedShape(source.label, read_shape(source.path), assumed=False)
    if source.shape is not None:
        return PlannedShape(source.label, source.shape, assumed=True)
    return None
