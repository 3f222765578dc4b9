"""What an experiment asks about, read in one go: by its own limits, with its context, its routes and its plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment

from configs.schema import DataConfig, DistillConfig
from orchestration.inputs import asked_prompts
from orchestration.inputs.asked_prompts import read_prompts, takes_long
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.wide_prompts import Widened


def write(path: Path, *rows: dict[str, Any]) -> dict[str, str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def asked(folder: Path, config: DistillConfig) -> tuple[Widened, ModelFiles]:
    teacher = materialise(config.teacher.model, models_root=folder / "models")
    return read_prompts(config, teacher=teacher), teacher


def test_prompts_come_with_what_the_teacher_sees_beside_them_and_with_plain_text(tmp_path: Path) -> None:
    splits = {
        split: write(
            tmp_path / f"{split}.jsonl",
            {"prompt": f"{split} asks", "answer": "ok"},
            {"prompt": f"{split} asks more", "answer": "an answer of more tokens than may be written"},
        )
        for split in ("train", "dev", "test")
    }
    plain = {split: write(tmp_path / f"plain-{split}.jsonl", {"text": f"{split} text"}) for split in ("train", "dev")}
    config = experiment(
        tmp_path,
        data={**splits, "response_field": "answer", "template": "raw", "max_prompt_tokens": 32, "plain": plain | {"max_tokens": 40}},
        teacher_context={"system_prompt": "Be brief."},
        runtime={"teacher_engine": {"max_model_len": 200, "max_batched_tokens": 200, "count": 1}},
    )  # fmt: skip
    read, teacher = asked(tmp_path, config)
    added = len(teacher.tokenizer.encode("Be brief.\n\n"))
    for split in ("train", "dev", "test"):
        (prompt,) = read.prompts.splits[split]
        assert prompt.gold_ids is not None and prompt.gold_ids[-1] in teacher.stop_ids
        assert prompt.wide_ids is not None and len(prompt.wide_ids) == len(prompt.prompt_ids) + added
    assert {name: len(rows) for name, rows in read.prompts.plain.items()} == {"train": 1, "dev": 1}
    assert [row.split for row in read.prompts.rejected] == ["train", "dev", "test"]
    assert read.said == (
        f"The teacher's context adds {added} tokens to a prompt, {added} at most. Students never see it.",
    )


def test_rows_are_sent_to_their_teachers(tmp_path: Path) -> None:
    rows = ({"prompt": f"{kind} asks", "kind": kind} for kind in ("one", "two"))
    write(tmp_path / "train.jsonl", *rows)
    for split in ("dev", "test"):
        write(tmp_path / f"{split}.jsonl", {"prompt": f"{split} asks", "kind": "two"})
    alone = experiment(tmp_path)
    second = {"model": alone.teacher.model.model_dump(mode="json", exclude_none=True) | {"seed": 7}}
    route = {"kind": "route", "field": "kind", "to": {"one": "teacher", "two": "second"}}
    read, _ = asked(tmp_path, experiment(tmp_path, teachers={"second": second}, combine=route))
    assert [prompt.teacher for prompt in read.prompts.splits["train"]] == ["teacher", "second"]
    assert read.said == ()


def test_rows_take_long_where_files_are_large_or_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_bytes(b"x" * 10)
    large.write_bytes(b"x" * 20)
    monkeypatch.setattr(asked_prompts, "LONG_BYTES", 30)

    def long(train: dict[str, Any], dev: Path = small) -> bool:
        given = {"train": train, "dev": {"path": str(dev)}, "test": {"path": str(tmp_path / "missing.jsonl")}}
        return takes_long(DataConfig.model_validate(given))

    assert not long({"path": str(large)})
    assert long({"path": str(large)}, large)
    assert not long({"path": str(large), "limit": 10_000}, large)
    assert long({"path": str(large), "limit": 10_001}, large)
    assert long({"hub": "owner/name"}) and not long({"hub": "owner/name", "limit": 5})
