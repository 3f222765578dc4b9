"""What a plain transformers forward pass says: slow, simple, and the judge of every faster engine.

A model that does not fit the memory of the machine goes through it layer by layer: each module takes its weights from
the files when it is called and lets go of them afterwards. The numbers are the same, and only the largest single matrix
has to fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from accelerate.hooks import attach_align_device_hook
from jaxtyping import Float32, Int32
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from cache.protocols import Progress
from configs.architecture import parsed_config, read_architecture
from configs.errors import ModelError
from configs.model_files import weight_files

SPARE_BYTES = 2**30
"""Memory that remains beside the weights for activations, logits and everything else."""


class NoReferenceError(ModelError):
    """The machine cannot make this forward pass. That says nothing against the model."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRows:
    """One sequence of T tokens: row i predicts token i + 1, so there are T - 1 rows. Nats, full vocabulary."""

    target_logprobs: Float32[np.ndarray, " T-1"]
    best_ids: Int32[np.ndarray, " T-1"]


def reference_rows(
    model_dir: Path,
    sequences: Sequence[Sequence[int]],
    *,
    dtype: str,
    memory_bytes: float = math.inf,
    report: Progress = lambda done, total: None,
) -> list[ReferenceRows]:
    """One unbatched forward pass a sequence, on the CPU, with weights and activations of `dtype`.

    Log-probabilities are normalised in float32. The model is loaded for this call and freed again; weights that do not
    fit `memory_bytes` are read layer by layer, once for all sequences, whose shorter ones are then padded at the end,
    where nothing that counts looks.

    Raises:
        ModelError: the directory cannot be loaded by transformers.
        NoReferenceError: not even its largest matrix fits, or its files are laid out in another way than the model.
    """
    try:
        weights = _Weights(model_dir, dtype=getattr(torch, dtype))
        whole = weights.total_bytes + SPARE_BYTES <= memory_bytes
        model = _loaded(model_dir, dtype=weights.dtype) if whole else _by_layers(model_dir, weights, memory_bytes)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{model_dir}: transformers cannot load this model: {error}") from error
    model.eval()
    batches = [[sequence] for sequence in sequences] if whole else [list(sequences)]
    _report_layers(model, passes=len(batches), report=report)
    return [rows for batch in batches for rows in _forward(model, batch)]


def _loaded(model_dir: Path, *, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )


def _by_layers(model_dir: Path, weights: _Weights, memory_bytes: float) -> Any:
    """The model without weights, whose modules fetch theirs when they are called."""
    if weights.largest_bytes + SPARE_BYTES > memory_bytes:
        raise NoReferenceError(
            f"{model_dir}: {(weights.largest_bytes + SPARE_BYTES) / 2**30:.1f} GiB are needed to compare an engine "
            f"with it and {memory_bytes / 2**30:.1f} GiB are free: end other programs"
        )
    config = parsed_config(model_dir)
    # What is computed from the configuration (the angles of positions) stays real.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=weights.dtype, trust_remote_code=False)
    if read_architecture(model_dir).shape.tied_embeddings:
        weights.tied = dict(getattr(model, "_tied_weights_keys", None) or {})
    missing = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in weights]
    if missing:
        raise NoReferenceError(
            f"{model_dir}: its {weights.total_bytes / 2**30:.1f} GiB of weights do not fit the free memory of "
            f"{memory_bytes / 2**30:.1f} GiB, and {missing[0]} is stored under another name, so it cannot be read "
            "layer by layer"
        )
    attach_align_device_hook(
        model, execution_device=torch.device("cpu"), offload=True, weights_map=weights, offload_buffers=False
    )
    return model


class _Weights(Mapping[str, Tensor]):
    """The tensors of a model's files, read anew whenever they are asked for."""

    def __init__(self, model_dir: Path, *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.tied: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self.total_bytes = self.largest_bytes = 0
        for path in weight_files(model_dir):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    self._files[name] = path
                    size = math.prod(file.get_slice(name).get_shape()) * dtype.itemsize
                    self.total_bytes += size
                    self.largest_bytes = max(self.largest_bytes, size)

    def __getitem__(self, name: str) -> Tensor:
        name = name if name in self._files else self.tied[name]
        with safe_open(self._files[name], "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        yield from self._files
        yield from (name for name, other in self.tied.items() if name not in self._files and other in self._files)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _report_layers(model: nn.Module, *, passes: int, report: Progress) -> None:
    """Have every layer report when it is done."""
    lists = [[*module] for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=len, default=[])
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        report(done, len(layers) * passes)

    for layer in layers:
        layer.register_forward_hook(count)


@torch.inference_mode()
def _forward(model: Any, sequences: Sequence[Sequence[int]]) -> list[ReferenceRows]:
    longest = max(len(sequence) for sequence in sequences)
    tokens = torch.tensor([[*sequence, *[sequence[-1]] * (longest - len(sequence))] for sequence in sequences])
    logits = model(input_ids=tokens, use_cache=False).logits
    found = []
    for row, sequence in enumerate(sequences):
        ends = len(sequence)
        logprobs = torch.log_softmax(logits[row, : ends - 1].float(), dim=-1)
        targets = logprobs.gather(1, tokens[row, 1:ends, None])[:, 0]
        best = logprobs.argmax(dim=-1).to(torch.int32)
        found.append(ReferenceRows(target_logprobs=targets.numpy(), best_ids=best.numpy()))
    return found
