"""A micro-batch of a task: rows of padded tokens, and the decisions that are learned from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TaskBatch:
    """B padded rows of T tokens with N units and D decisions in all.

    `segment_ids` are 1 from where the second text of a pair begins. `units[n]` is the place of unit n in the B x T
    tokens laid flat, `owner[n]` its row. `gold[d]` is the right choice of a decision, -1 where it is not known.
    `choices` [D, Cmax], of tasks with spans alone, are the units that a decision chooses among (-1 behind the last);
    decision 2 e is about the first, 2 e + 1 about the last unit of the span of row e. `teacher` are the teacher's
    logits at the units, None where only gold is learned.
    """

    input_ids: Int64[Tensor, "B T"]
    attention_mask: Int64[Tensor, "B T"]
    segment_ids: Int64[Tensor, "B T"]
    units: Int64[Tensor, " N"]
    owner: Int64[Tensor, " N"]
    gold: Int64[Tensor, " D"]
    teacher: Float[Tensor, "N C"] | None
    choices: Int64[Tensor, "D Cmax"] | None = None

    def to(self, device: torch.device) -> TaskBatch:
        """The same batch on another device."""
        moved = {
            name: value.to(device)
            for name in self.__dataclass_fields__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)

    def decisions(self, logits: Float[Tensor, "N C"]) -> tuple[Float[Tensor, "D K"], Bool[Tensor, "D K"] | None]:
        """Logits at units as logits of decisions: [D, choices of each], and which choices there are (None: all).

        For spans the two columns of the logits become rows over the units of an example.
        """
        if self.choices is None:
            return logits, None
        valid = self.choices >= 0
        column = torch.arange(len(self.choices), device=logits.device)[:, None] % 2
        return logits[self.choices.clamp(min=0), column], valid
