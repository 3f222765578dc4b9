"""What two models must share for one to take the other's place in a running engine, and proof that it did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from configs.errors import ModelError
from configs.model_files import WEIGHTS_INDEX, read_config, stray_weights, weight_files

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor of a checkpoint, by its name."""

WeightSource = Callable[[int, torch.device], Iterator[tuple[str, Tensor]]]
"""Gives process number i of an engine, on its device, the tensors of a checkpoint. It pickles."""

VOLATILE_KEYS = frozenset(
    {
        "_name_or_path",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "pad_token_id",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    }
)
"""Keys of config.json that change neither a tensor's shape nor the computation of an engine that is given its dtype."""


def require_weights(model_dir: Path) -> None:
    """Refuse a directory that an engine cannot be started from.

    Raises:
        ModelError: `model_dir` has no config.json, no weights that load, or some that an engine would load besides.
    """
    read_config(model_dir)
    if (strays := stray_weights(model_dir)) and not (model_dir / WEIGHTS_INDEX).is_file():
        # Without an index vLLM loads every safetensors file that it finds.
        raise ModelError(f"{model_dir}: {strays[0]} lies beside the model's weights: serve a directory without it")


def require_same_shape(loaded: Path, replacement: Path) -> None:
    """Refuse to put the weights of `replacement` into an engine that was started from `loaded`.

    The engine itself would only log a warning about a tensor it misses, and go on with the old one.

    Raises:
        ModelError: naming the first keys of config.json, or the first tensor, that differ.
    """
    require_weights(replacement)
    here, there = _config(loaded), _config(replacement)
    keys = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if keys:
        raise ModelError(
            f"{replacement}: {keys[0]}={there.get(keys[0])} but the running engine has {keys[0]}={here.get(keys[0])}: "
            "start another engine for this model"
        )
    require_shapes(loaded, _tensors(replacement), who=str(replacement))


def require_shapes(loaded: Path, shapes: Shapes, *, who: str) -> None:
    """Refuse tensors other than those of the model in `loaded`, from which an engine was started.

    Raises:
        ModelError: naming the first tensor that differs, and `who` has it.
    """
    tensors = _tensors(loaded)
    for name in sorted(tensors.keys() | shapes.keys()):
        if tensors.get(name) != shapes.get(name):
            raise ModelError(
                f"{who}: tensor {name} has shape {shapes.get(name)}, in the running engine "
                f"{tensors.get(name)}: start another engine for this model"
            )


def take_weights(worker: Any, source: WeightSource) -> None:
    """Let one process of an engine replace its weights by what `source` gives it."""
    worker.model_runner.reload_weights(weights_iterator=source(worker.rank, worker.device))


@torch.inference_mode()
def repack(model: torch.nn.Module) -> None:
    """Bring the packed copies of matrices up to date that a CPU engine keeps beside the matrices themselves.

    vLLM 0.32 packs them when a layer of its own is reloaded. A head that is tied to the embedding is not loaded, so its
    packed copy stayed that of the former model: its log-probabilities were off by 4 nats.
    """
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "cpu_linear")]
    for layer in layers:
        if layer.weight.numel():
            layer.quant_method.process_weights_after_loading(layer)


@torch.inference_mode()
def weight_digests(model: torch.nn.Module) -> dict[str, str]:
    """SHA-256 (hex) of each parameter of a running engine's model, a tied one under each of its names.

    On a CPU the engine multiplies with matrices in a packed form, for most of which it drops the parameter. What they
    hold is read by multiplying with the identity, which is exact, and stands under `packed`.
    """
    digests = {}
    for path, module in model.named_modules():
        held = {name: parameter for name, parameter in module.named_parameters(recurse=False) if parameter.numel()}
        if hasattr(module, "cpu_linear"):
            held["packed"] = _packed(module)
        for name, tensor in held.items():
            array = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
            digests[f"{path}.{name}"] = hashlib.sha256(array.data).hexdigest()
    return digests


def _packed(layer: Any) -> torch.Tensor:
    """The matrix [out, in] that a layer of a CPU engine multiplies with."""
    width = layer.weight.shape[1] if layer.weight.numel() else layer.input_size_per_partition
    product: torch.Tensor = layer.cpu_linear(torch.eye(width, dtype=layer.weight.dtype), layer.weight, None)
    return product.T


def _config(model_dir: Path) -> dict[str, Any]:
    return {key: value for key, value in read_config(model_dir).items() if key not in VOLATILE_KEYS}


def _tensors(model_dir: Path) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(model_dir):
        with safe_open(path, framework="numpy") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes
