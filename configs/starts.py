"""Where students start: what is kept of their teacher, or a model of their own."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from configs.models import Block, ModelSource, NonNegative, Positive


class InitConfig(Block):
    """Where a student starts: the teacher with fewer layers or narrower ones, or a model of its own.

    Widths, and layers chosen by block influence, are measured on `calibration_rows` sequences of the train split.
    `alternate` keeps every second layer, the first among them.
    """

    model: ModelSource | None = None
    keep_layers: Positive | tuple[NonNegative, ...] | None = None
    layers_by: Literal["linspace", "contiguous", "alternate", "block_influence"] = "linspace"
    attention_heads: Positive | None = None
    mlp_channels: Positive | None = None
    hidden_size: Positive | None = None
    calibration_rows: Positive = 64

    @property
    def narrows(self) -> bool:
        """Whether any width is cut."""
        return any(width is not None for width in (self.attention_heads, self.mlp_channels, self.hidden_size))

    @property
    def calibrated(self) -> bool:
        """Whether the teacher's activations decide what stays."""
        return self.narrows or self.layers_by == "block_influence"

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        derived = self.keep_layers is not None or self.narrows
        if (self.model is None) != derived:
            raise ValueError(
                "name either model (start from it) or what to keep of the teacher: keep_layers, attention_heads, "
                "mlp_channels, hidden_size"
            )
        require_kept_layers(self.keep_layers, layers_by=self.layers_by)
        return self


def require_kept_layers(keep_layers: int | tuple[int, ...] | None, *, layers_by: str) -> None:
    """Refuse layers that cannot be kept, or not be chosen so.

    Raises:
        ValueError: naming the keys.
    """
    if keep_layers == ():
        raise ValueError("keep_layers=[] keeps nothing: name at least one layer, or how many to keep")
    if isinstance(keep_layers, tuple) and list(keep_layers) != sorted(set(keep_layers)):
        raise ValueError(f"keep_layers={list(keep_layers)} must be increasing and without repeats")
    if layers_by != "linspace" and not isinstance(keep_layers, int):
        raise ValueError(f"layers_by={layers_by} needs keep_layers as a number, not {keep_layers}")
