"""A bidirectional LSTM or GRU over embeddings, as a student of a task (Tang et al. 2019, arXiv 1903.12136).

Rows are packed by their lengths, so padding never enters a state, in either direction. For classification the states
of a row become one vector: their largest value in each dimension, or their mean weighted by additive attention (Yang
et al. 2016, Hierarchical attention networks, eq. 5-7). Tags and spans are read at each token. Two texts of a pair are
told apart by the separator between them alone.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from configs.models import Positive
from student_train.models.task_network import NetworkConfig, NetworkStudent


class RecurrentConfig(NetworkConfig):
    """Sizes of a recurrent network: `hidden` units in each direction of each of `layers` layers."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru"] = "lstm"
    hidden: Positive
    layers: Positive = 1
    pooling: Literal["max", "attention"] = "max"

    @property
    def head_inputs(self) -> int:
        """See `NetworkConfig.head_inputs`."""
        return 2 * self.hidden


class AdditiveAttention(nn.Module):
    """One vector of the states of a row: their mean, weighted by softmax(v' tanh(W h))."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.states = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, states: Float[Tensor, "B T H"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B H"]:
        """The weighted mean over what is valid of each row."""
        scores = self.score(torch.tanh(self.states(states))).squeeze(-1).masked_fill(~valid, -torch.inf)
        return torch.einsum("bt,bth->bh", scores.softmax(dim=1), states)


class RecurrentStudent(NetworkStudent):
    """The network; `network` holds its recurrent layers."""

    config_class = RecurrentConfig
    loading: ClassVar[str] = """
def part(prefix):
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}

cell = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[config["cell"]]
network = cell(
    config["embedding_size"], config["hidden"], config["layers"], batch_first=True, bidirectional=True
)
network.load_state_dict(part("network."))
with torch.no_grad():
    states, _ = network(weights["embedding.weight"][ids])
if config["task"] == "classification" and config["pooling"] == "max":
    states = states.amax(dim=1)
elif config["task"] == "classification":
    seen = torch.tanh(states @ weights["attention.states.weight"].T + weights["attention.states.bias"])
    states = ((seen @ weights["attention.score.weight"].T).softmax(dim=1) * states).sum(dim=1)
logits = states @ weights["head.weight"].T + weights["head.bias"]
"""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.network = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell](
            config.embedding_size,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        pools = config.task == "classification" and config.pooling == "attention"
        self.attention = AdditiveAttention(2 * config.hidden) if pools else None

    def forward(
        self,
        input_ids: Int64[Tensor, "B T"],
        attention_mask: Int64[Tensor, "B T"],
        segment_ids: Int64[Tensor, "B T"],
    ) -> Tensor:
        """See `TaskStudent.forward`."""
        del segment_ids
        embedded = self.dropout(self.embedded(input_ids, attention_mask))
        packed = pack_padded_sequence(embedded, attention_mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.network(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        if self.kind == "classification":
            valid = attention_mask.bool()
            if self.attention is not None:
                states = self.attention(states, valid)
            else:
                states = states.masked_fill(~valid[:, :, None], -torch.inf).amax(dim=1)
        logits: Tensor = self.head(self.dropout(states))
        return logits

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See `TaskStudent.layer_groups`. What pools counts as head."""
        pooling = [] if self.attention is None else list(self.attention.parameters())
        layers: list[list[nn.Parameter]] = [[] for _ in range(self.network.num_layers)]
        for name, weight in self.network.named_parameters():
            # weight_ih_l0, bias_hh_l1_reverse
            layers[-1 - int(name.removesuffix("_reverse").rpartition("_l")[2])].append(weight)
        return [[*self.head.parameters(), *pooling], *layers, list(self.embedding.parameters())]
