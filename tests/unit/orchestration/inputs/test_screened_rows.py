"""Screened data take the place of what is named: rows keep their numbers, and nothing private is written anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment
from screening_builders import find_digits

from configs import ConfigError
from configs.schema import DistillConfig
from orchestration.inputs import screened_files
from orchestration.inputs.rows import split_rows
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_experiment import ScreenedExperiment, Screening
from orchestration.inputs.screened_files import screened_in_words
from orchestration.inputs.screened_rows import screened_data

ROWS = {
    "train": [{"prompt": "call 555", "note": "or 556"}, {"prompt": "hello"}, {"prompt": "nutmeg"}],
    "dev": [{"prompt": "call 555 again", "meta": {"calls": ["557", 558]}}],
    "test": [{"prompt": "bye"}],
}


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    for split, content in ROWS.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("{not JSON\n")
    (tmp_path / "blocked.txt").write_text("nutmeg")


def below(root: Path) -> Screening:
    return Screening(root / "screened", say=lambda line: None)


def screened(root: Path, **blocks: Any) -> ScreenedExperiment[DistillConfig]:
    return screened_data(experiment(root, **blocks), below(root))


def read(config: DistillConfig, split: str) -> dict[int, Any]:
    return dict(split_rows(config.data.splits[split], split=split))


def test_what_is_private_becomes_a_placeholder_in_every_field_and_split(tmp_path: Path) -> None:
    found = screened(tmp_path, privacy={"prompts": "redact"})
    assert read(found.config, "train")[0] == {"prompt": "call <PHONE_1>", "note": "or <PHONE_2>"}
    assert read(found.config, "dev")[0] == {
        "prompt": "call <PHONE_1> again",
        "meta": {"calls": ["<PHONE_3>", 558]},
    }
    assert read(found.config, "train")[3].startswith("invalid JSON"), "what is wrong with a row is still said"
    written = "".join(path.read_text() for path in (tmp_path / "screened").rglob("*") if path.is_file())
    assert "555" not in written and "557" not in written
    assert found.splits["train"] == Screened(3, {"PHONE": 2}, 0, 0)
    assert screened_in_words(found.splits)[0] == "data.train: 3 rows looked at: 2 PHONE."


def test_rows_that_are_left_out_keep_their_number_and_say_why(tmp_path: Path) -> None:
    blocks = {"privacy": {"prompts": "drop"}, "content": {"blocklist": str(tmp_path / "blocked.txt")}}
    found = screened(tmp_path, **blocks)
    assert read(found.config, "train") == {
        0: "it holds what is private (PHONE)",
        1: {"prompt": "hello"},
        2: "it holds a phrase of the blocklist",
        3: "invalid JSON: Expecting property name enclosed in double quotes",
    }
    assert found.splits["train"].dropped == 2


def test_counting_changes_nothing_that_is_read(tmp_path: Path) -> None:
    found = screened(tmp_path, privacy={})
    assert [read(found.config, "train")[at] for at in range(3)] == ROWS["train"]
    assert found.splits["dev"].found == {"PHONE": 2}


def test_plain_text_is_screened_as_well(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "555"}) + "\n")
    plain = {split: {"path": str(tmp_path / "text.jsonl")} for split in ("train", "dev")}
    values = experiment(tmp_path, privacy={"prompts": "redact"})
    data = values.data.model_validate(values.data.model_dump() | {"plain": plain})
    found = screened_data(values.model_copy(update={"data": data}), below(tmp_path))
    assert found.config.data.plain is not None
    assert list(split_rows(found.config.data.plain.dev, split="plain.dev")) == [(0, {"text": "<PHONE_1>"})]


def test_the_same_files_are_screened_once_and_other_ones_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = screened(tmp_path, privacy={})
    with monkeypatch.context() as patch:
        patch.setattr(screened_files, "_fill", None)
        assert screened(tmp_path, privacy={}) == first
        planned = experiment(tmp_path, privacy={})
        there = screened_data(planned, replace(below(tmp_path), root=tmp_path / "x", made=tmp_path / "screened"))
        assert there == first and not (tmp_path / "x").exists()
    (tmp_path / "test.jsonl").write_text('{"prompt": "ciao 559"}\n')
    assert screened(tmp_path, privacy={}).splits["test"].found == {"PHONE": 1}
    assert screened(tmp_path, privacy={"threshold": 0.9}).config != first.config


def test_without_a_block_nothing_is_read(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    assert screened_data(config, below(tmp_path)) == ScreenedExperiment(config, {})
    assert not (tmp_path / "screened").exists()


def test_what_answers_need_is_missed_before_anything_is_read(tmp_path: Path) -> None:
    missing = {"blocklist": str(tmp_path / "nowhere.txt"), "prompts": "off"}
    with pytest.raises(ConfigError, match=r"content\.blocklist=.*nowhere\.txt cannot be read"):
        screened(tmp_path, content=missing)
