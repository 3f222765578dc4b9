"""The trained student as a plain transformers directory.

Weights are stored in the dtype the student was trained in: a stage in bfloat16 computes every loss with bfloat16
weights (the float32 copies belong to the optimiser), so bfloat16 is what was measured, and a float32 file would be
another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from student_train.directories import copy_companions, staged_directory


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the README of an exported student says about where it comes from."""

    teacher: str
    licence: str | None
    view_digest: str
    objective: str
    steps: int


def export_student(
    model: Any,
    weights: Mapping[str, Tensor],
    *,
    start: Path,
    out: Path,
    card: ModelCard,
) -> Path:
    """Write `weights` with the model's config, and tokenizer and generation config from `start`, to `out`.

    `out` appears whole or not at all; an existing one is replaced. Tied weights are stored once.
    """
    with staged_directory(out) as staging:
        copy_companions(start, staging)
        model.save_pretrained(staging, state_dict=dict(weights), safe_serialization=True)
        (staging / "README.md").write_text(card_text(card), encoding="utf-8")
    return out


def card_text(card: ModelCard) -> str:
    """The model card, in Markdown."""
    licence = card.licence or "not stated by the configuration: find out before you pass this model on"
    return f"""# Student of {card.teacher}

Trained for {card.steps} steps with the objective `{card.objective}` on what its teacher said and believed.

- Teacher: {card.teacher}
- Teacher's licence: {licence}. This student was made from the teacher's output (and perhaps its weights); terms that
  the licence sets for derived models, such as naming, notices and limits of use, apply to it too.
- Cache view (SHA-256): `{card.view_digest}`
"""
