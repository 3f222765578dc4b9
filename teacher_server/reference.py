"""What a plain transformers forward pass says: slow, simple, and the judge of every faster engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int32
from transformers import AutoModelForCausalLM

from configs.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRows:
    """One sequence of T tokens: row i predicts token i + 1, so there are T - 1 rows. Nats, full vocabulary."""

    target_logprobs: Float32[np.ndarray, " T-1"]
    best_ids: Int32[np.ndarray, " T-1"]


def reference_rows(model_dir: Path, sequences: Sequence[Sequence[int]], *, dtype: str) -> list[ReferenceRows]:
    """One unbatched forward pass a sequence, on the CPU, with weights and activations of `dtype`.

    Log-probabilities are normalised in float32. The model is loaded for this call and freed again.

    Raises:
        ModelError: the directory cannot be loaded by transformers.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{model_dir}: transformers cannot load this model: {error}") from error
    model.eval()
    return [_forward(model, sequence) for sequence in sequences]


@torch.inference_mode()
def _forward(model: torch.nn.Module, sequence: Sequence[int]) -> ReferenceRows:
    tokens = torch.tensor([list(sequence)])
    logprobs = torch.log_softmax(model(input_ids=tokens).logits[0, :-1].float(), dim=-1)
    targets = logprobs.gather(1, tokens[0, 1:, None])[:, 0]
    return ReferenceRows(target_logprobs=targets.numpy(), best_ids=logprobs.argmax(dim=-1).to(torch.int32).numpy())
