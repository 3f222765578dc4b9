"""Canaries stand behind the rows of the training data, in a file of their own; nobody's file is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import SHAPE, experiment

from configs import ConfigError
from configs.models import ModelSource
from orchestration.inputs.asked_prompts import read_prompts
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.planted_rows import Planted, planted_data, require_writable
from orchestration.inputs.rows import split_rows

ROOMY = SHAPE.model_copy(update={"max_positions": 256})
GOLD = {"objective": "sft", "source": "gold", "steps": 4}
KD = {"objective": "kd", "steps": 4}


def planted(root: Path, *stages: dict[str, Any], canaries: dict[str, Any] | None = None, **data: Any) -> Planted:
    splits = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    for split in splits:
        rows = [{"prompt": f"{split} {at}", "response": "yes"} for at in range(3)]
        lines = [*map(json.dumps, rows), "{broken"]
        (root / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    limits = {"max_model_len": 192, "max_batched_tokens": 192, "count": 1}
    config = experiment(
        root,
        teacher={"model": {"random": ROOMY.model_dump(), "seed": 0}, "dtype": "float32", "top_k": 4},
        data={**splits, "response_field": "response", "max_prompt_tokens": 128, **data},
        students={"kd": {"init": {"keep_layers": 1}, "stages": list(stages or (GOLD,))}},
        generation={"temperature": 0.0, "max_new_tokens": 48},
        runtime={"teacher_engine": limits, "student_engine": limits},
        audit={"canaries": {"count": 6, "repeats": [1, 2]} | (canaries or {})},
    )
    return planted_data(config, root=root / "planted")


def files(root: Path) -> ModelFiles:
    return materialise(ModelSource(random=ROOMY, seed=0), models_root=root / "models")


def rows(found: Planted) -> list[Any]:
    assert found.config.data.train is not None
    return [row for _, row in split_rows(found.config.data.train, split="train")]


def test_rows_keep_their_places_and_canaries_follow(tmp_path: Path) -> None:
    found = planted(tmp_path)
    read = rows(found)
    assert read[:3] == [{"prompt": f"train {at}", "response": "yes"} for at in range(3)]
    assert read[3].startswith("invalid JSON") and (found.first, found.rows) == (4, 6 * 3)
    assert len(read) == 4 + 18
    assert [row["prompt"] for row in read[4:]] == [prompt for each in found.canaries for prompt, _ in each.rows]
    assert (
        "canary" not in (tmp_path / "train.jsonl").read_text()
        and "code of" not in (tmp_path / "train.jsonl").read_text()
    )
    assert found.said == (
        "data.train: 18 rows with canaries stand behind its 4 rows: 6 made-up secrets for each of 1, 2 repeats, in "
        "answers, each of 1,000,000 that there are.",
    )


@pytest.mark.parametrize(
    ("stages", "where", "places"),
    [
        ((GOLD,), None, {"answer"}),
        ((KD,), None, {"prompt"}),
        ((KD, GOLD), None, {"prompt", "answer"}),
        ((GOLD,), ["prompt"], {"prompt"}),
    ],
)
def test_canaries_stand_where_a_stage_learns(stages: Any, where: Any, places: set[str], tmp_path: Path) -> None:
    found = planted(tmp_path, *stages, canaries={} if where is None else {"where": where})
    assert {each.place for each in found.canaries} == places


def test_conversations_get_conversations(tmp_path: Path) -> None:
    (last, *_) = reversed(rows(planted(tmp_path, response_field=None, messages_field="turns")))
    assert [turn["role"] for turn in last["turns"]] == ["user", "assistant"]


def test_the_same_rows_are_planted_once_and_other_ones_anew(tmp_path: Path) -> None:
    first = planted(tmp_path)
    assert planted(tmp_path).config.data == first.config.data
    assert planted(tmp_path, canaries={"seed": 1}).config.data != first.config.data
    assert planted_data(first.config, root=tmp_path / "x", made=tmp_path / "y").config.data != first.config.data


def test_without_a_block_nothing_is_read(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    assert planted_data(config, root=tmp_path / "planted") == Planted(config)
    assert not (tmp_path / "planted").exists() and Planted(config).said == ()


def test_planted_rows_are_prompts_with_gold_answers(tmp_path: Path) -> None:
    found, teacher = planted(tmp_path), files(tmp_path)
    prompts = read_prompts(found.config, teacher=teacher).prompts
    found.require_readable(prompts, reader=teacher)
    assert len([each for each in prompts.splits["train"] if each.row >= found.first]) == 18


def test_rows_that_are_too_long_are_one_line(tmp_path: Path) -> None:
    found, teacher = planted(tmp_path, max_prompt_tokens=40), files(tmp_path)
    prompts = read_prompts(found.config, teacher=teacher).prompts
    with pytest.raises(
        ConfigError, match=r"audit.canaries: \d+ of 18 planted rows cannot be used .* raise data.max_prompt_"
    ):
        found.require_readable(prompts, reader=teacher)


class Blind:
    """A tokenizer that writes digits as nothing."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[str]:
        return [each for each in text if not each.isdigit()]

    def decode(self, ids: list[str]) -> str:
        return "".join(ids)


def test_a_secret_that_a_tokenizer_cannot_write_is_one_line_with_the_cure(tmp_path: Path) -> None:
    blind: Any = type("Files", (), {"tokenizer": Blind(), "label": "some/model"})
    with pytest.raises(ConfigError, match=r"the tokenizer of some/model writes .* set audit.canaries.alphabet to"):
        require_writable(planted(tmp_path).canaries, blind)
    require_writable(planted(tmp_path, canaries={"alphabet": "abcdefgh"}).canaries, blind)
