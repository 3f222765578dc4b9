"""Which weights may take the place of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from tiny_llama import save_tiny_llama

from configs.errors import ModelError
from teacher_server.weights import require_same_shape, require_weights


def test_a_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        require_weights(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        require_weights(tmp_path)


def test_only_a_model_of_the_same_shape_may_take_the_place(tmp_path: Path) -> None:
    first, second = save_tiny_llama(tmp_path / "1", seed=0), save_tiny_llama(tmp_path / "2", seed=1)
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config | {"_name_or_path": "another", "use_cache": False}))
    require_same_shape(first, second)
    (second / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    with pytest.raises(ModelError, match=r"rms_norm_eps=0\.5"):
        require_same_shape(first, second)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    first, second = save_tiny_llama(tmp_path / "1", seed=0), save_tiny_llama(tmp_path / "2", seed=1)
    [path] = second.glob("*.safetensors")
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"model\.norm\.weight has shape None"):
        require_same_shape(first, second)
