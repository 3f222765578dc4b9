"""General stages whose models cannot do them: refused in one line, by config.json and tokenizer alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from general_jobs import save_encoder
from task_students import save_tokenizer

from configs import ConfigError
from configs.task_experiment import TaskDistillConfig
from orchestration.pipeline.tasks.general_checks import require_general_models

MASKED = {"objective": "masked_lm", "data": ["plain"], "steps": 2}
COSINE = {"objective": "features", "data": ["plain"], "steps": 2, "select": "last", "features": [{"kind": "cosine"}]}
PREPARE = [{"objective": "hard_labels", "epochs": 1.0}]
SHAPE = {"layers": 2, "hidden": 8, "heads": 2, "mlp": 8, "max_positions": 32}


def check(place: Path, *general: dict[str, Any], start: dict[str, Any] | None = None, **teacher: Any) -> None:
    values = {
        "name": "moods",
        "task": "moods.yaml",
        "teacher": {"model": {"path": str(place)}, "prepare": PREPARE, **teacher},
        "data": {"plain": {"train": {"path": "a.jsonl"}, "dev": {"path": "b.jsonl"}, "max_tokens": 24}},
        "students": {
            "half": {
                "start": {"kind": "transformer", **(start or {"keep_layers": 2})},
                "general": list(general),
                "stages": PREPARE,
            }
        },
        "runtime": {"models_root": str(place.parent / "models")},
    }
    require_general_models(TaskDistillConfig.model_validate(values), teacher_dir=place)


def test_what_can_work_is_let_through(tmp_path: Path) -> None:
    soft = MASKED | {"soft_weight": 1.0}
    guesses, bare = save_encoder(tmp_path / "guesses"), save_encoder(tmp_path / "bare", guesses=False)
    check(guesses, MASKED, soft, COSINE)
    check(bare, COSINE)
    check(bare, soft, general=[MASKED])
    check(bare, MASKED, start={"shape": SHAPE})
    check(bare, MASKED, start={"model": {"path": str(guesses)}})


@pytest.mark.parametrize(
    ("stage", "start", "message"),
    [
        (MASKED, None, "general.0.objective=masked_lm begins with a head that guesses hidden tokens, and .* has none"),
        (
            MASKED | {"soft_weight": 5.0},
            {"shape": SHAPE},
            "general.0.soft_weight=5 learns what the teacher guesses of hidden tokens, and .* has none",
        ),
    ],
)
def test_a_teacher_without_such_a_head_leaves_features(
    tmp_path: Path, stage: dict[str, Any], start: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(save_encoder(tmp_path / "bare", guesses=False), stage, start=start)
    assert "set objective: features, which needs none, or have teacher.general train one" in str(caught.value)


def test_layers_tokenizers_masks_and_positions_have_to_fit(tmp_path: Path) -> None:
    place = save_encoder(tmp_path / "teacher")
    with pytest.raises(ConfigError, match=r"students\.half\.general\.0\.features\.0: cosine compares states of one"):
        check(place, COSINE, start={"shape": SHAPE})
    with pytest.raises(ConfigError, match=r"max_tokens=24 and students\.half reads 16 tokens: lower it to 16"):
        check(place, MASKED, start={"shape": SHAPE | {"max_positions": 16}})
    other = save_encoder(tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": {"type": "Lowercase"}}))
    with pytest.raises(ConfigError, match="has another tokenizer than the teacher"):
        check(place, MASKED, start={"model": {"path": str(other)}})
    save_tokenizer(place)
    with pytest.raises(ConfigError, match=r"hides tokens behind a mask token and the tokenizer of .* has none"):
        check(place, MASKED)
