"""A student of a task as training, export and prediction see it: from padded tokens to logits at units.

What kind of network it is stands in a module of its own (`task_transformer`, `recurrent`, `bag`). All of them keep two
promises: logits of a row do not depend on the rows beside it nor on how far it is padded, and the labels stand in the
order of the task.

Shapes: B rows, T tokens, N units, C labels (2 for spans: first, last).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from configs.errors import ModelError
from configs.task import SHOWN_LABELS, TaskKind
from configs.task_features import InsideSizes
from student_train.feed.task_batch import TaskBatch
from student_train.models.tracing import Trace

HEAD_KINDS: tuple[TaskKind, ...] = ("classification", "tagging", "extractive_qa")
"""Kinds of tasks that a head can do."""

PIPELINES: Mapping[TaskKind, str] = {
    "classification": "text-classification",
    "tagging": "token-classification",
    "extractive_qa": "question-answering",
}
"""What model hubs call a kind of task."""

ANY_LENGTH = 2**31 - 1
"""`max_tokens` of a network without positions."""


class TaskStudent(nn.Module, ABC):
    """A network with the head of a task.

    `labels` are in the order of its outputs. `vocab` is V, the number of token ids that it knows, `max_tokens` the
    longest row that it reads. `new_head` says that its head was drawn at random when it was loaded.
    """

    def __init__(self, *, kind: TaskKind, labels: Sequence[str], vocab: int, max_tokens: int) -> None:
        super().__init__()
        self.kind, self.labels = kind, tuple(labels)
        self.vocab, self.max_tokens = vocab, max_tokens
        self.new_head = False

    @abstractmethod
    def forward(
        self,
        input_ids: Int64[Tensor, "B T"],
        attention_mask: Int64[Tensor, "B T"],
        segment_ids: Int64[Tensor, "B T"],
    ) -> Tensor:
        """Logits [B, C] (classification) or [B, T, C] of rows padded on the right.

        `segment_ids` are 1 from where the second text of a pair begins. What stands at padding is never read.
        """

    @abstractmethod
    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from the top down: head, every layer, embeddings. One may stand in several groups."""

    def groups(self) -> list[list[nn.Parameter]]:
        """Every parameter once, from the top down: the head first, then layer by layer, the embeddings last.

        A parameter that several groups share belongs to the lowest of them: it is learned when all that it acts on is.
        """
        found: list[list[nn.Parameter]] = []
        seen: set[int] = set()
        for group in reversed(self.layer_groups()):
            found.insert(0, [each for each in group if id(each) not in seen])
            seen.update(map(id, group))
        assert seen == set(map(id, self.parameters()))
        return [group for group in found if group]

    @property
    def purpose(self) -> str:
        """What it is for, for its model card."""
        return f"A student for {self.kind} with {len(self.labels)} labels"

    @property
    def pipeline(self) -> str:
        """What model hubs call models like it."""
        return PIPELINES[self.kind]

    def recompute_activations(self) -> None:
        """Let the backward pass compute activations again instead of keeping them; networks of few layers keep them."""

    @property
    @abstractmethod
    def sizes(self) -> InsideSizes:
        """Of what is inside."""

    @abstractmethod
    def traced(self, batch: TaskBatch) -> Trace:
        """One forward pass with what is inside the network while it reads; logits as `unit_logits` gives them."""

    def unit_logits(self, batch: TaskBatch) -> Float[Tensor, "N C"]:
        """Float32 logits at the units of a batch: of its row (classification), or at its token."""
        return self.at_units(self(batch.input_ids, batch.attention_mask, batch.segment_ids), batch)

    def at_units(self, logits: Tensor, batch: TaskBatch) -> Float[Tensor, "N C"]:
        """What `forward` gave, at the units of the batch."""
        if self.kind == "classification":
            return logits.float().index_select(0, batch.owner)
        return logits.float().flatten(0, 1).index_select(0, batch.units)


def order_of_labels(found: Sequence[str], *, wanted: Sequence[str], model_dir: Path) -> list[int]:
    """Where each wanted label stands among those of a head.

    Raises:
        ModelError: they are not the same labels.
    """
    if len(found) != len(wanted) or set(found) != set(wanted):
        raise ModelError(
            f"{model_dir}: its head knows {_shown(found)} and the task has {_shown(wanted)}: make id2label in its "
            "config.json say those of the task, or name a model without a head"
        )
    return [list(found).index(label) for label in wanted]


def reorder_rows(module: nn.Linear, order: Sequence[int]) -> None:
    """Bring the outputs of a linear layer into another order, in place."""
    with torch.no_grad():
        module.weight.copy_(module.weight[list(order)].clone())
        if module.bias is not None:
            module.bias.copy_(module.bias[list(order)].clone())


def _shown(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return f"{len(labels)} labels ({', '.join(labels[:SHOWN_LABELS])}{more})"
