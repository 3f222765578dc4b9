"""A student cut from its teacher: some of its layers, and perhaps fewer heads, channels and dimensions in each.

The tensors of the kept layers are copied from the teacher's safetensors and renumbered; what is not cut stays equal
byte for byte. No model is built and one shard is in memory at a time, so deriving from a large teacher needs little
memory. Per-layer lists of the config (`layer_types` and the like) are cut to the kept layers, so a decoder with
alternating kinds of attention keeps the kind that each layer was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from configs.architecture import read_architecture
from configs.errors import ModelError
from configs.model_files import CONFIG, WEIGHTS, WEIGHTS_INDEX, read_config, weight_files
from configs.models import ModelShape
from configs.starts import InitConfig
from student_train.files import copy_companions, staged_directory
from student_train.starts.calibration import Calibration
from student_train.starts.narrowing import LAYER, Cuts, choose_cuts, narrowed_config, require_narrowable
from student_train.starts.sizes import kept_layers, planned_shape

_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Config entries that hold one item a layer. They are named here, as other lists may happen to have that length."""


def derive_student(
    teacher_dir: Path,
    out_dir: Path,
    *,
    keep_layers: int | tuple[int, ...] | None = None,
    attention_heads: int | None = None,
    mlp_channels: int | None = None,
    hidden_size: int | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write a smaller copy of the teacher to `out_dir` and return that path.

    `keep_layers` is a number of layers, spread evenly with the first and the last among them, or their indices. The
    other sizes are those of the student; a `calibration` of this teacher decides what stays. None keeps everything.

    Raises:
        ConfigError: more than the teacher has, sizes that do not go together, or widths without a calibration.
        ModelError: not a decoder directory with safetensors, or not one that can be made narrower.
    """
    config = _read_config(teacher_dir)
    total = int(config["num_hidden_layers"])
    kept = kept_layers(keep_layers, total=total)
    init = InitConfig(
        keep_layers=kept, attention_heads=attention_heads, mlp_channels=mlp_channels, hidden_size=hidden_size
    )
    pruned, cuts = pruned_config(config, kept=kept, total=total), None
    if init.narrows:
        teacher, student = check_widths(teacher_dir, init)
        cuts = choose_cuts(config, teacher=teacher, student=student, layers=kept, calibration=calibration)
        pruned = narrowed_config(pruned, student=student)
    with staged_directory(out_dir) as staging:
        _write_weights(teacher_dir, staging, kept=kept, total=total, cuts=cuts)
        (staging / CONFIG).write_text(json.dumps(pruned, indent=2) + "\n", encoding="utf-8")
        copy_companions(teacher_dir, staging)
    return out_dir


def check_widths(teacher_dir: Path, init: InitConfig) -> tuple[ModelShape, ModelShape]:
    """The shapes of the teacher and of the student, from the names and sizes of tensors; no weight is read.

    Raises:
        ConfigError: sizes that the teacher does not have, or that do not go together.
        ModelError: a tensor that cannot be cut.
    """
    config = _read_config(teacher_dir)
    teacher = read_architecture(teacher_dir).shape
    student = planned_shape(init, teacher=teacher)
    require_narrowable(teacher_dir, config, teacher=teacher, student=student)
    return teacher, student


def pruned_config(config: dict[str, Any], *, kept: tuple[int, ...], total: int) -> dict[str, Any]:
    """A config as that of the same model with the `kept` of its `total` layers."""
    pruned = dict(config)
    for key in _PER_LAYER:
        if isinstance(values := config.get(key), list) and len(values) == total:
            pruned[key] = [values[layer] for layer in kept]
    if isinstance(limit := config.get("max_window_layers"), int):
        # Qwen2 treats the layers below this index differently, so it moves with the layers that are removed.
        pruned["max_window_layers"] = sum(layer < limit for layer in kept)
    return pruned | {"num_hidden_layers": len(kept)}


def _read_config(teacher_dir: Path) -> dict[str, Any]:
    """The config as stored, with what the architecture fills in by itself spelled out where it matters here."""
    config = read_config(teacher_dir)
    if not isinstance(config.get("num_hidden_layers"), int):
        raise ModelError(f"{teacher_dir / CONFIG} has no num_hidden_layers: only plain decoders can be pruned in depth")
    kinds = read_architecture(teacher_dir).layer_types
    return config if kinds is None else config | {"layer_types": list(kinds)}


def _write_weights(teacher_dir: Path, staging: Path, *, kept: tuple[int, ...], total: int, cuts: Cuts | None) -> None:
    new_index = {layer: position for position, layer in enumerate(kept)}
    weight_map: dict[str, str] = {}
    found: set[int] = set()
    for shard in weight_files(teacher_dir):
        tensors: dict[str, torch.Tensor] = {}
        with safe_open(shard, framework="pt") as reader:
            names = list(reader.keys())
            found |= {layer for layer in map(_layer_of, names) if layer is not None}
            staying = {name: renamed for name in names if (renamed := _renamed(name, new_index)) is not None}
            for name, renamed in staying.items():
                tensor = reader.get_tensor(name)
                tensors[renamed] = tensor if cuts is None else cuts.apply(name, tensor)
        if tensors:
            save_file(tensors, staging / shard.name, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, shard.name)
    if found != set(range(total)):
        raise ModelError(
            f"{teacher_dir} holds tensors of {len(found)} layers but its config says {total}: copy or download it again"
        )
    _write_index(staging, weight_map)


def _layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to, if it belongs to one."""
    match = LAYER.search(name)
    return None if match is None else int(match.group(1))


def _renamed(name: str, new_index: Mapping[int, int]) -> str | None:
    """What a tensor of the teacher is called in the student; None where its layer goes."""
    match = LAYER.search(name)
    if match is None:
        return name
    layer = new_index.get(int(match.group(1)))
    return None if layer is None else f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}"


def _write_index(staging: Path, weight_map: dict[str, str]) -> None:
    """Name the single file as loaders expect it, or write the index of several."""
    written = sorted(set(weight_map.values()))
    if len(written) == 1:
        (staging / written[0]).rename(staging / WEIGHTS)
        return
    size = sum((staging / name).stat().st_size for name in written)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (staging / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
