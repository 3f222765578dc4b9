"""Experiments of a language model for tests of the schema: small, valid, and with whatever is to be tried."""

from __future__ import annotations

from typing import Any

from configs.data import DataConfig
from configs.schema import DistillConfig

CANARIES: dict[str, Any] = {"audit": {"canaries": {}}}


def experiment(**changes: Any) -> DistillConfig:
    blocks: dict[str, Any] = {
        "name": "test",
        "teacher": {"model": {"path": "teacher"}},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
        "students": {"kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}]}},
    }
    return DistillConfig.model_validate(blocks | changes)


def data(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({split: {"hub": "a/b"} for split in ("train", "dev", "test")} | settings)


def on_plain_text(**changes: Any) -> DistillConfig:
    stages = [{"objective": "kd", "source": "plain", "steps": 10}]
    return experiment(students={"kd": {"init": {"keep_layers": 2}, "stages": stages}}, **changes)


def context(stage: dict[str, Any], **changes: Any) -> DistillConfig:
    students = {"kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 4, **stage}]}}
    shown = {"system_prompt": "Be brief."}
    return experiment(**({"students": students, "teacher_context": shown} | changes))
