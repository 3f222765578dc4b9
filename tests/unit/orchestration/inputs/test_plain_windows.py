"""Plain text as sequences: how it is cut, what is set aside, and that nothing held out is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError, DataError
from configs.schema import DataConfig, DistillConfig
from orchestration.inputs.plain_windows import with_plain
from orchestration.inputs.prompts import PromptSet, Rejected
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.real_paths import resolve_paths
from orchestration.outputs.foundations import content_of

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
NONE = PromptSet({}, (Rejected("train", 3, "empty", ""),))


def data(folder: Path, *, train: list[Any], dev: list[Any], **settings: Any) -> DataConfig:
    for name, rows in (("train", train), ("dev", dev)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    plain = {name: {"path": str(folder / f"{name}.jsonl")} for name in ("train", "dev")} | settings
    splits = {split: {"hub": "a/b"} for split in ("train", "dev", "test")}
    return DataConfig.model_validate({**splits, "plain": plain})


def texts(*said: str) -> list[dict[str, str]]:
    return [{"text": text} for text in said]


def test_every_token_of_a_text_but_its_first_is_learned_once(tmp_path: Path) -> None:
    words = ["a stillroom keeps what it distils", "два", "short"]
    prompts = with_plain(
        NONE, data(tmp_path, train=texts(*words), dev=texts("other"), max_tokens=8), tokenizer=TOKENIZER
    )
    assert prompts.rejected == NONE.rejected and set(prompts.plain) == {"train", "dev"}
    for row, text in enumerate(words):
        windows = [prompt for prompt in prompts.plain["train"] if prompt.row == row]
        learned: list[int] = []
        for window in windows:
            assert window.gold_ids is not None and len(window.prompt_ids) == 1 and 1 <= len(window.gold_ids) <= 7
            # The given token is the last of the window before.
            assert not learned or window.prompt_ids[0] == learned[-1]
            learned += window.gold_ids
        assert [*windows[0].prompt_ids, *learned] == [*TOKENIZER.encode(text), EOS]


def test_an_experiment_without_plain_text_is_as_it_was() -> None:
    config = DataConfig.model_validate({split: {"hub": "a/b"} for split in ("train", "dev", "test")})
    assert with_plain(NONE, config, tokenizer=TOKENIZER) is NONE


def test_rows_that_cannot_be_used_and_texts_that_are_held_out_are_set_aside_and_counted(tmp_path: Path) -> None:
    token = TOKENIZER.eos_token
    config = data(
        tmp_path,
        train=[*texts("learned", "held out"), {"words": "x"}, *texts(f"spells {token}"), "{broken"],
        dev=texts("held out"),
    )
    prompts = with_plain(NONE, config, tokenizer=TOKENIZER)
    assert {prompt.row for prompt in prompts.plain["train"]} == {0}
    found = [(each.split, each.row, each.reason) for each in prompts.rejected[1:]]
    assert found[0] == ("plain-train", 1, "it stands in data.plain.dev too")
    assert found[1] == ("plain-train", 2, "no field 'text', only 'words'")
    assert [each[:2] for each in found[2:]] == [("plain-train", 3), ("plain-train", 4)]
    assert prompts.rejected[1].text == "held out"


def test_the_field_is_named_and_rows_are_limited(tmp_path: Path) -> None:
    config = data(tmp_path, train=[{"story": "one"}], dev=[{"story": "two"}], field="story")
    assert len(with_plain(NONE, config, tokenizer=TOKENIZER).plain["train"]) == 1


@pytest.mark.parametrize(
    ("train", "words"),
    [([{"words": "x"}], "all 1 were set aside, the first because: no field"), ([{"text": "held"}], "stands in data")],
)
def test_a_split_without_a_usable_text_is_refused(tmp_path: Path, train: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=rf"data\.plain\.train: no usable text; .*{words}"):
        with_plain(NONE, data(tmp_path, train=train, dev=texts("held")), tokenizer=TOKENIZER)


def whole(folder: Path, config: DataConfig) -> DistillConfig:
    (folder / "rows.jsonl").write_text("{}\n")
    blocks = config.model_dump() | {split: {"path": "rows.jsonl"} for split in ("train", "dev", "test")}
    return DistillConfig.model_validate(
        {
            "name": "plain",
            "teacher": {"model": {"hub": "a/b"}},
            "data": blocks,
            "students": {
                "s": {"init": {"keep_layers": 1}, "stages": [{"objective": "sft", "source": "plain", "steps": 1}]}
            },
        }
    )


def test_its_files_are_found_beside_the_yaml_and_are_part_of_the_run(tmp_path: Path) -> None:
    config = whole(tmp_path, data(tmp_path, train=texts("a"), dev=texts("b")))
    plain = config.data.plain
    assert plain is not None
    beside = plain.model_copy(update={"train": plain.train.model_copy(update={"path": Path("train.jsonl")})})
    config = config.model_copy(update={"data": config.data.model_copy(update={"plain": beside})})
    real = resolve_paths(config, config_dir=tmp_path).data.plain
    assert real is not None and real.train.path == tmp_path / "train.jsonl"
    before = content_of(config, config_dir=tmp_path)
    assert {"data.plain.train.path", "data.plain.dev.path"} <= set(before)
    (tmp_path / "train.jsonl").write_text('{"text": "another"}\n')
    after = content_of(config, config_dir=tmp_path)
    assert {key for key in after if after[key] != before[key]} == {"data.plain.train.path"}
    (tmp_path / "dev.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"data\.plain\.dev\.path=.* is empty: put text in it"):
        resolve_paths(config, config_dir=tmp_path)
