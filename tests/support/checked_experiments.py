"""An experiment of which files, places and lengths are checked before anything starts, and how a refusal reads."""

from __future__ import annotations

from typing import Any

import pytest

from configs import ConfigError, DistillConfig


def config(**changes: Any) -> DistillConfig:
    raw: dict[str, Any] = {
        "name": "checked",
        "teacher": {"model": {"hub": "a/b"}, "top_k": 16},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")} | {"max_prompt_tokens": 64},
        "generation": {"max_new_tokens": 64},
        "students": {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}},
    }
    for key, value in changes.items():
        raw[key] = raw.get(key, {}) | value
    return DistillConfig.model_validate(raw)


def refused(error: pytest.ExceptionInfo[ConfigError]) -> str:
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return str(error.value)
