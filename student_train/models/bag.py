"""The mean of the embeddings of a text, with a linear layer or a small network behind it, as a student of a task.

Tokens that the tokenizer adds to every text ([CLS], [SEP], the beginning) are left out of the mean: they say nothing
of the text, and in a short one they would be a large and constant part of it. A token that stands for a word that is
not known or was masked stays. Of two texts of a pair one mean is taken.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor, nn

from configs.models import NonNegative, Positive
from student_train.models.task_network import NetworkConfig, NetworkStudent


class BagConfig(NetworkConfig):
    """Sizes of a bag of embeddings. `left_out` are the ids of the tokens that the tokenizer adds to a text."""

    kind: Literal["bag"] = "bag"
    task: Literal["classification"] = "classification"
    hidden: Positive | None = None
    left_out: Annotated[tuple[NonNegative, ...], Field(max_length=1024)] = ()

    @property
    def head_inputs(self) -> int:
        """See `NetworkConfig.head_inputs`."""
        return self.hidden or self.embedding_size


class BagStudent(NetworkStudent):
    """The network; `hidden` is the layer between mean and head, if there is one."""

    config_class = BagConfig
    loading: ClassVar[str] = """
words = ids[0][~torch.isin(ids[0], torch.tensor(config["left_out"]))]
states = weights["embedding.weight"][words].sum(dim=0, keepdim=True) / max(len(words), 1)
if config["hidden"] is not None:
    states = torch.relu(states @ weights["hidden.weight"].T + weights["hidden.bias"])
logits = states @ weights["head.weight"].T + weights["head.bias"]
"""

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.hidden = None if config.hidden is None else nn.Linear(config.embedding_size, config.hidden)
        self.left_out: Tensor
        self.register_buffer("left_out", torch.tensor(config.left_out, dtype=torch.int64), persistent=False)

    def forward(
        self,
        input_ids: Int64[Tensor, "B T"],
        attention_mask: Int64[Tensor, "B T"],
        segment_ids: Int64[Tensor, "B T"],
    ) -> Tensor:
        """See `TaskStudent.forward`. A text without words is the zero vector."""
        del segment_ids
        counted = attention_mask.bool() & ~torch.isin(input_ids, self.left_out)
        embedded = self.embedded(input_ids, attention_mask) * counted[:, :, None]
        mean = embedded.sum(dim=1) / counted.sum(dim=1, keepdim=True).clamp(min=1)
        states = self.dropout(mean)
        if self.hidden is not None:
            states = self.dropout(torch.relu(self.hidden(states)))
        logits: Tensor = self.head(states)
        return logits

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See `TaskStudent.layer_groups`."""
        between = [] if self.hidden is None else list(self.hidden.parameters())
        return [list(self.head.parameters()), between, list(self.embedding.parameters())]
