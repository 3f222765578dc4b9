"""Models that a config, a tokenizer or a generation config shows to be unfit are refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from student_builders import tiny_llama
from transformers import (
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from configs.errors import ConfigError, ModelError
from configs.stages import StageConfig
from student_train.training.trial import require_trainable

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
KD = StageConfig.model_validate({"objective": "kd", "steps": 1})


def config_of(path: Path, config: Any) -> Path:
    """A directory without a weight: nothing of the trial may need one."""
    config.save_pretrained(path)
    return path


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "mistral": lambda: MistralConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES),
    "gemma2": lambda: Gemma2Config(**SIZES),
    "gemma3": lambda: Gemma3TextConfig(**SIZES),
    "phi3": lambda: Phi3Config(**SIZES),
    "granite without a scale": lambda: GraniteConfig(**SIZES),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_can_be_trained_pass(family: str, tmp_path: Path) -> None:
    require_trainable(config_of(tmp_path, FAMILIES[family]()), [KD])


@pytest.mark.parametrize(
    "config",
    [GraniteConfig(**SIZES, logits_scaling=8.0), CohereConfig(**SIZES), Cohere2Config(**SIZES), PhiConfig(**SIZES)],
    ids=["granite", "cohere", "cohere2", "phi (bias)"],
)
def test_heads_that_do_more_than_multiply_are_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="only heads that are one matrix without bias or scale are supported"):
        require_trainable(config_of(tmp_path, config), [KD])


@pytest.mark.parametrize("module", ["lm_head", "nowhere"])
def test_adapters_for_what_is_not_in_the_body_are_refused(module: str, tmp_path: Path) -> None:
    stage = StageConfig.model_validate({"objective": "kd", "steps": 1, "lora": {"modules": [module]}})
    with pytest.raises(ConfigError, match=f"lora.modules names {module}, which is not a linear layer .* q_proj"):
        require_trainable(config_of(tmp_path, LlamaConfig(**SIZES)), [KD, stage])


def test_a_generation_config_that_transformers_cannot_load_is_refused(tmp_path: Path) -> None:
    start = tiny_llama(tmp_path)
    (start / "generation_config.json").write_text(json.dumps({"cache_implementation": "of next year"}))
    with pytest.raises(ModelError, match="of next year"):
        require_trainable(start, [KD])
