"""Shapes of models: read from a `config.json`, or assumed from the experiment's YAML. Imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from configs import ModelError
from configs.models import ModelSource
from configs.schema import ModelShape


@dataclass(frozen=True, slots=True)
class PlannedShape:
    """A model's sizes for planning; `assumed` when they come from the YAML and no file was seen."""

    label: str
    shape: ModelShape
    assumed: bool


def read_shape(config_json: Path) -> ModelShape:
    """Sizes from a transformers `config.json`.

    Raises:
        ModelError: the file cannot be read, or lacks a size that a decoder has.
    """
    try:
        raw = json.loads(config_json.read_text(encoding="utf-8"))
        text = raw.get("text_config", raw)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{config_json} is no readable JSON object: copy it again from where it came") from error
    heads = text.get("num_attention_heads")
    try:
        return ModelShape(
            layers=text.get("num_hidden_layers"),
            hidden=text.get("hidden_size"),
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            mlp=text.get("intermediate_size"),
            vocab=text.get("vocab_size"),
            head_dim=text.get("head_dim"),
            tied_embeddings=bool(text.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))),
            max_positions=text.get("max_position_embeddings") or 4096,
        )
    except ValidationError as error:
        first = error.errors()[0]
        keys = ", ".join(str(item["loc"][0]) for item in error.errors() if item["loc"])
        reason = f"no usable {keys}" if keys else str(first["ctx"]["error"])
        raise ModelError(f"{config_json} does not describe a decoder: {reason}") from error


def shape_at_hand(source: ModelSource) -> PlannedShape | None:
    """The shape that is known without fetching anything, or None."""
    if source.random is not None:
        return PlannedShape(source.label, source.random, assumed=False)
    if source.path is not None and (source.path / "config.json").is_file():
        return PlannedShape(source.label, read_shape(source.path / "config.json"), assumed=False)
    if source.shape is not None:
        return PlannedShape(source.label, source.shape, assumed=True)
    return None
