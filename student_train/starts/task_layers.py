"""Task students of fewer layers than the model they are cut from: which layers stay, and the model without the rest.

Layers stay as they are, embeddings and head too, so that the student starts with what its teacher knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from configs.errors import DataError, ModelError
from student_train.models.task_transformer import TransformerStudent, layers_of
from student_train.starts.derive import pruned_config

Rows = Sequence[Integer[np.ndarray, " _"]]
"""Token ids of texts, special tokens among them."""


def layer_influence(student: TransformerStudent, rows: Rows) -> list[float]:
    """1 - mean cosine of input and output of every layer over all tokens of `rows` (ShortGPT, arXiv 2403.03853, eq. 1).

    Raises:
        DataError: there is no token in `rows`.
        ModelError: see `separate_layers`.
    """
    layers = separate_layers(student)
    sums = torch.zeros(len(layers), dtype=torch.float64)

    def watch(place: int) -> RemovableHandle:
        def see(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            before = args[0] if args else named["hidden_states"]
            after = output if isinstance(output, Tensor) else output[0]
            sums[place] += (1.0 - torch.cosine_similarity(before.double(), after.double(), dim=-1)).sum()

        return layers[place].register_forward_hook(see, with_kwargs=True)

    read_watched(student, rows, [watch(place) for place in range(len(layers))])
    tokens = sum(map(len, rows))
    if not tokens:
        raise DataError("no tokens to measure the teacher's layers on: give it at least one text")
    return [float(total) / tokens for total in sums]


def read_watched(student: TransformerStudent, rows: Rows, hooks: Sequence[RemovableHandle]) -> None:
    """Have a student read all texts, one at a time, while `hooks` look on; they are removed then."""
    try:
        with torch.no_grad():
            for row in rows:
                ids = torch.from_numpy(row.astype(np.int64))[None]
                student(ids, torch.ones_like(ids), torch.zeros_like(ids))
    finally:
        for hook in hooks:
            hook.remove()


def separate_layers(student: TransformerStudent) -> nn.ModuleList:
    """The layers of a student, from the bottom up.

    Raises:
        ModelError: its family has not as many of them as its config says (ALBERT shares one).
    """
    layers, config = layers_of(student.model), student.model.config
    if len(layers) != config.num_hidden_layers:
        raise ModelError(
            f"{config.model_type}: has {len(layers)} layers of its own where its config says "
            f"{config.num_hidden_layers}, so none can be taken out: name another teacher, or a shape"
        )
    return layers


def keep_only(student: TransformerStudent, kept: tuple[int, ...]) -> None:
    """Take every other layer out of a student, in place.

    Raises:
        ModelError: see `separate_layers`.
    """
    layers, config = separate_layers(student), student.model.config
    before = config.to_dict() | {"num_hidden_layers": len(layers)}
    for key, value in pruned_config(before, kept=kept, total=len(layers)).items():
        if value != before[key]:
            setattr(config, key, value)
    held = [layers[place] for place in kept]
    del layers[:]
    layers.extend(held)
