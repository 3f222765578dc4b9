"""A micro-batch of a task: rows of padded tokens, and the decisions that are learned from them.

Shapes, beside those of `TaskBatch`: E texts, S states of each, H their width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from cache.batches import Rows
from configs.task_features import StateName
from student_train.feed.examples import ExampleSet


@dataclass(frozen=True, slots=True, eq=False)
class TaskBatch:
    """B padded rows of T tokens with N units and D decisions in all.

    `segment_ids` are 1 from where the second text of a pair begins. `units[n]` is the place of unit n in the B x T
    tokens laid flat, `owner[n]` its row. `gold[d]` is the right choice of a decision, -1 where it is not known.
    `choices` [D, Cmax], of tasks with spans alone, are the units that a decision chooses among (-1 behind the last);
    decision 2 e is about the first, 2 e + 1 about the last unit of the span of row e. `teacher` are the teacher's
    logits at the units, None where only gold is learned, and `states` S hidden states of it of each text, by
    `state_names`. `groups` names the group of each text where texts are related to each other.

    The first `texts` rows are texts; an empty batch has a row that is none. `per_text` and `per_token` are the
    decisions of the whole step over its texts, and over its tokens: a sum over texts times `per_text` is, divided by
    the decisions of the step, the mean over its texts.
    """

    input_ids: Int64[Tensor, "B T"]
    attention_mask: Int64[Tensor, "B T"]
    segment_ids: Int64[Tensor, "B T"]
    units: Int64[Tensor, " N"]
    owner: Int64[Tensor, " N"]
    gold: Int64[Tensor, " D"]
    teacher: Float[Tensor, "N C"] | None
    choices: Int64[Tensor, "D Cmax"] | None = None
    states: Float[Tensor, "E S H"] | None = None
    state_names: tuple[StateName, ...] = ()
    groups: Int64[Tensor, " E"] | None = None
    texts: int = 0
    per_text: float = 1.0
    per_token: float = 1.0

    @property
    def tokens(self) -> Bool[Tensor, "B T"]:
        """Which places hold tokens of texts."""
        rows = torch.arange(len(self.input_ids), device=self.input_ids.device) < self.texts
        return self.attention_mask.bool() & rows[:, None]

    def to(self, device: torch.device) -> TaskBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
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


def collate_examples(examples: ExampleSet, rows: Rows) -> TaskBatch:
    """These examples as one micro-batch, on the CPU; no examples make an empty one that still runs the whole model."""
    lengths = _counts(examples.token_offsets, rows)
    width = max(1, int(lengths.max(initial=0)))
    # Any id will do as padding, no unit reads it. An empty batch has one row of one such id.
    there = np.arange(width) < lengths[:, None] if len(rows) else np.ones((1, width), dtype=bool)
    input_ids = np.zeros(there.shape, dtype=np.int64)
    if len(rows):
        input_ids[there] = examples.token_ids[_places(examples.token_offsets, rows)]
    second = np.zeros_like(input_ids)
    second[: len(rows)] = np.arange(width) >= examples.split[rows][:, None]
    at = _places(examples.unit_offsets, rows)
    units = _counts(examples.unit_offsets, rows)
    owner = np.repeat(np.arange(len(rows)), units)
    teacher, states = examples.teacher, examples.states
    return TaskBatch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(there.astype(np.int64)),
        segment_ids=torch.from_numpy(second * there),
        units=torch.from_numpy(owner * width + examples.unit_tokens[at]),
        owner=torch.from_numpy(owner),
        gold=torch.from_numpy(examples.gold[_places(examples.decision_offsets, rows)].astype(np.int64)),
        teacher=None if teacher is None else torch.from_numpy(teacher[at]),
        choices=_choices(units) if examples.kind == "extractive_qa" else None,
        states=None if states is None else torch.from_numpy(states[rows]),
        state_names=examples.state_names,
        texts=len(rows),
    )


def _counts(offsets: NDArray[np.int64], rows: Rows) -> NDArray[np.int64]:
    """How many parts each of these rows has; the others, of which there may be millions, are not looked at."""
    counts: NDArray[np.int64] = offsets[rows + 1] - offsets[rows]
    return counts


def _places(offsets: NDArray[np.int64], rows: Rows) -> NDArray[np.int64]:
    """Where the parts of these rows stand in the flat array that `offsets` cut, row after row."""
    counts = _counts(offsets, rows)
    first = np.repeat(offsets[rows] - (np.cumsum(counts) - counts), counts)
    places: NDArray[np.int64] = first + np.arange(len(first))
    return places


def _choices(units: NDArray[np.int64]) -> Int64[Tensor, "D Cmax"]:
    """For rows with so many units: those that the first, and then the last, unit of a span is chosen among."""
    each = np.arange(max(1, int(units.max(initial=0))))
    found = np.where(each < units[:, None], (np.cumsum(units) - units)[:, None] + each, -1)
    return torch.from_numpy(found.repeat(2, axis=0))
