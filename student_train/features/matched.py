"""A layer of the student beside the layer of the teacher that it is matched with.

Shapes: U texts or tokens, h and H widths, B texts, A heads, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MatchedStates:
    """States of one pair of layers; `projection` brings the student's width to the teacher's where they differ.

    `groups` names the group of each text, among whose others its states are related.
    """

    student: Float[Tensor, "U h"]
    teacher: Float[Tensor, "U H"]
    projection: Float[Tensor, "h H"] | None = None
    groups: Int64[Tensor, " U"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MatchedScores:
    """Attention scores of one pair of layers before the softmax; `mask` marks the tokens that there are."""

    student: Float[Tensor, "B A L L"]
    teacher: Float[Tensor, "B A L L"]
    mask: Bool[Tensor, "B L"]
