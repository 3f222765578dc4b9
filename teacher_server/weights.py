"""What two model directories must share for one to take the other's place in a running engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from configs.errors import ModelError

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
        ModelError: no config.json or no *.safetensors stand in `model_dir`.
    """
    if not (model_dir / "config.json").is_file():
        raise ModelError(f"{model_dir}: no config.json here; name a directory saved by save_pretrained")
    if not any(model_dir.glob("*.safetensors")):
        raise ModelError(f"{model_dir}: no *.safetensors here; save the model with safetensors (pickles are not read)")


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
    tensors, others = _tensors(loaded), _tensors(replacement)
    for name in sorted(tensors.keys() | others.keys()):
        if tensors.get(name) != others.get(name):
            raise ModelError(
                f"{replacement}: tensor {name} has shape {others.get(name)}, in the running engine "
                f"{tensors.get(name)}: start another engine for this model"
            )


def _config(model_dir: Path) -> dict[str, Any]:
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if key not in VOLATILE_KEYS}


def _tensors(model_dir: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(model_dir.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes
