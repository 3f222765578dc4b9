"""Shapes of models for planning: read from their files, or assumed from the experiment's YAML."""

from __future__ import annotations

from dataclasses import dataclass

from configs.architecture import read_architecture
from configs.model_files import CONFIG
from configs.models import ModelShape, ModelSource


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
