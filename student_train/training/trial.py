"""Models that could not be trained or exported are refused early, from their config and the names of their parts.

The model is built without memory for its weights and treated as a stage will treat it: taken apart, given adapters, and
exported with the files of its start. What would otherwise fail after the last step fails here, within a second.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from configs.architecture import parsed_config, read_architecture
from configs.errors import ModelError
from configs.model_files import read_generation_config
from configs.stages import StageConfig
from student_train.models.adapters import adapted_layers
from student_train.models.decoder import take_apart
from student_train.models.export import write_model
from student_train.models.tracing import require_open_attention


def require_trainable(model_dir: Path, stages: Sequence[StageConfig]) -> None:
    """Refuse a model that these stages could not train or export; no weight is read.

    A student that is still to be cut from its teacher is judged by the teacher's directory.

    Raises:
        ModelError: its head is not one matrix, it cannot be built, its attention is to be looked into and cannot, or it
            cannot be exported.
        ConfigError: adapters for layers that it does not have.
    """
    before, config = read_architecture(model_dir), parsed_config(model_dir)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, attn_implementation="sdpa")
        if read_generation_config(model_dir):
            GenerationConfig.from_pretrained(model_dir, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{model_dir}: transformers cannot build this model ({said}): choose another student"
        ) from error
    take_apart(model)
    for stage in stages:
        if stage.lora is not None:
            adapted_layers(model, stage.lora)
        if stage.reads_attention:
            require_open_attention(model_dir)
    _require_exportable(model, model_dir, positions=before.shape.max_positions)


def _require_exportable(model: torch.nn.Module, model_dir: Path, *, positions: int) -> None:
    """Export the model with a single small weight in place of all, and read it back."""
    name, weight = min(model.named_parameters(), key=lambda named: named[1].numel())
    with tempfile.TemporaryDirectory(prefix="stillroom-export-") as folder:
        try:
            write_model(
                model, {name: torch.zeros(weight.shape, dtype=weight.dtype)}, start=model_dir, folder=Path(folder)
            )
            after = read_architecture(Path(folder))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            if isinstance(error, ModelError):
                raise
            said = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{model_dir}: a student of it could not be exported ({said}): repair its files"
            ) from error
    if after.shape.max_positions != positions:
        raise ModelError(
            f"{model_dir}: its {positions} positions become {after.shape.max_positions} when it is exported: choose "
            "another student"
        )
