"""A GGUF file inside an installed Python package, unpacked once into a plain directory of a model."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs import ModelError
from orchestration.inputs.made_once import make_once

logger = logging.getLogger(__name__)


def unpack_gguf(package: str, file: str, *, models_root: Path) -> Path:
    """The directory of the model in `file`, which lies inside `package`.

    Raises:
        ModelError: the package is not installed, or does not hold this file.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        # The parent of a dotted name is missing, or it is not a name at all.
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"package {package} is not installed: install it, or name the model with path or hub")
    gguf = Path(spec.submodule_search_locations[0]) / file
    if not gguf.is_file():
        there = ", ".join(sorted(path.name for path in gguf.parent.glob("*.gguf"))) or "none"
        raise ModelError(f"package {package} holds no file {file}; GGUF files there: {there}")
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = models_root / f"{gguf.stem}-{digest[:12]}"
    logger.info("%s is wanted as %s", gguf.name, target)
    return make_once(target, lambda staging: _convert(gguf, staging))


def _convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF file as safetensors: in a fresh model, as transformers refuses to save one that it read from GGUF."""
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = type(loaded.config).from_dict(loaded.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(loaded).__name__]
    model = type(loaded)(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
