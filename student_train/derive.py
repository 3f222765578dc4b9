"""A student made of some of its teacher's layers.

The kept layers' tensors are copied byte for byte from the teacher's safetensors and renumbered; embeddings, final norm
and head stay as they are. No model is built and one shard is in memory at a time, so deriving from a large teacher
needs little memory. Per-layer lists of the config (`layer_types` and the like) are cut to the kept layers, so a decoder
with alternating kinds of attention keeps the kind that each layer was trained with.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from configs.errors import ConfigError, ModelError
from student_train.directories import copy_companions, staged_directory

_LAYER = re.compile(r"(?:^|(?<=\.))layers\.(\d+)\.")

_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Config entries that hold one item a layer. Named, because other lists may happen to be as long."""


def derive_student(teacher_dir: Path, out_dir: Path, *, keep_layers: int | tuple[int, ...]) -> Path:
    """Write a depth-pruned copy of the teacher to `out_dir` and return that path.

    `keep_layers` is a number of layers, spread evenly with the first and the last among them, or their indices.

    Raises:
        ConfigError: a layer that the teacher does not have, or more layers than it has.
        ModelError: not a decoder directory with safetensors and `num_hidden_layers`.
    """
    config = _read_config(teacher_dir)
    total = int(config["num_hidden_layers"])
    kept = kept_layers(keep_layers, total=total)
    with staged_directory(out_dir) as staging:
        _write_weights(teacher_dir, staging, kept=kept, total=total)
        pruned = _pruned_config(config, kept=kept, total=total)
        (staging / "config.json").write_text(json.dumps(pruned, indent=2) + "\n", encoding="utf-8")
        copy_companions(teacher_dir, staging)
    return out_dir


def kept_layers(keep_layers: int | tuple[int, ...], *, total: int) -> tuple[int, ...]:
    """The indices of the teacher's layers that stay, ascending.

    Raises:
        ConfigError: when `keep_layers` asks for what a teacher of `total` layers cannot give.
    """
    if isinstance(keep_layers, int):
        if not 0 < keep_layers <= total:
            raise ConfigError(f"keep_layers={keep_layers} but the teacher has {total} layers: keep 1 to {total}")
        return tuple(int(layer) for layer in np.rint(np.linspace(0, total - 1, keep_layers)))
    if not keep_layers or list(keep_layers) != sorted(set(keep_layers)):
        raise ConfigError(f"keep_layers={list(keep_layers)} must be increasing, without repeats and not empty")
    if keep_layers[0] < 0 or keep_layers[-1] >= total:
        raise ConfigError(f"keep_layers={list(keep_layers)} but the teacher's layers are 0 to {total - 1}")
    return keep_layers


def _read_config(teacher_dir: Path) -> dict[str, Any]:
    """The config as stored, with `layer_types` spelled out where the architecture derives it from the layer index."""
    path = teacher_dir / "config.json"
    if not path.is_file():
        raise ModelError(f"{teacher_dir} has no config.json: give a plain transformers directory")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config.get("num_hidden_layers"), int):
        raise ModelError(f"{path} has no num_hidden_layers: only plain decoders can be pruned in depth")
    layer_types = getattr(AutoConfig.from_pretrained(teacher_dir, trust_remote_code=False), "layer_types", None)
    if layer_types is not None:
        config["layer_types"] = list(layer_types)
    return config


def _pruned_config(config: dict[str, Any], *, kept: tuple[int, ...], total: int) -> dict[str, Any]:
    pruned = dict(config)
    for key in _PER_LAYER:
        if isinstance(values := config.get(key), list) and len(values) == total:
            pruned[key] = [values[layer] for layer in kept]
    if isinstance(limit := config.get("max_window_layers"), int):
        # Qwen2 counts the layers below this index, so it moves with the layers that are gone.
        pruned["max_window_layers"] = sum(layer < limit for layer in kept)
    return pruned | {"num_hidden_layers": len(kept)}


def _write_weights(teacher_dir: Path, staging: Path, *, kept: tuple[int, ...], total: int) -> None:
    shards = sorted(teacher_dir.glob("*.safetensors"))
    if not shards:
        raise ModelError(f"{teacher_dir} has no safetensors: convert the model to safetensors first")
    new_index = {layer: position for position, layer in enumerate(kept)}
    weight_map: dict[str, str] = {}
    found: set[int] = set()
    for shard in shards:
        tensors: dict[str, torch.Tensor] = {}
        with safe_open(shard, framework="pt") as reader:
            for name in reader.keys():  # noqa: SIM118 - a safetensors reader is not iterable
                match = _LAYER.search(name)
                if match is None:
                    tensors[name] = reader.get_tensor(name)
                    continue
                layer = int(match.group(1))
                found.add(layer)
                if layer in new_index:
                    renamed = f"{name[: match.start(1)]}{new_index[layer]}{name[match.end(1) :]}"
                    tensors[renamed] = reader.get_tensor(name)
        if tensors:
            save_file(tensors, staging / shard.name, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, shard.name)
    if found != set(range(total)):
        raise ModelError(f"{teacher_dir} holds tensors of {len(found)} layers but its config says {total}")
    _write_index(staging, weight_map)


def _write_index(staging: Path, weight_map: dict[str, str]) -> None:
    """Name the single file as loaders expect it, or write the index of several."""
    written = sorted(set(weight_map.values()))
    if len(written) == 1:
        (staging / written[0]).rename(staging / "model.safetensors")
        return
    size = sum((staging / name).stat().st_size for name in written)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (staging / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
