"""Plain text of general stages: what is left out, how texts become windows, and which tokens may be hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from general_jobs import MASK, save_encoder
from task_students import WORDS
from transformers import AutoTokenizer

from configs import ConfigError, DataError
from configs.schema import PlainConfig
from orchestration.inputs.general_texts import hideable, read_general_texts, window_tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_encoder(tmp_path_factory.mktemp("encoder")))


def plain(folder: Path, *, train: list[Any], dev: list[str]) -> PlainConfig:
    for name, texts in (("train", train), ("dev", dev)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return PlainConfig.model_validate({name: {"path": str(folder / f"{name}.jsonl")} for name in ("train", "dev")})


def test_what_is_held_out_is_not_learned_and_what_is_left_out_is_counted(tmp_path: Path, tokenizer: Any) -> None:
    config = plain(tmp_path, train=["w1 w2", "W1  w2", "w3", "w4 w5", "w6", 7, "a [CLS] b"], dev=["w3", "w9"])
    texts = read_general_texts(config, tokenizer=tokenizer, held_out=["w4 w5"])
    assert texts.train == ("w1 w2", "w6") and texts.dev == ("w3", "w9")
    assert texts.notes[0].startswith("plain.train: 2 rows set aside; the first: row 5: not text but int")
    assert texts.notes[1] == "plain.train: 3 texts left out that stand there twice, or among those held out"


def test_a_split_of_which_nothing_is_left_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    config = plain(tmp_path, train=["w1"], dev=["w1"])
    with pytest.raises(DataError, match=r"data\.plain\.train: no text is left of it: name others"):
        read_general_texts(config, tokenizer=tokenizer, held_out=())


def test_windows_hold_every_token_once_between_special_ones(tokenizer: Any) -> None:
    texts = [" ".join(f"w{at % 20}" for at in range(11)), "w7"]
    windows = [ids.tolist() for ids, split in window_tokens(tokenizer, texts, max_tokens=6) if split == len(ids)]
    assert [len(each) for each in windows] == [6, 6, 5, 3]
    assert all(each[0] == WORDS.index("[CLS]") and each[-1] == WORDS.index("[SEP]") for each in windows)
    inner = [token for each in windows[:3] for token in each[1:-1]]
    assert inner == tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    with pytest.raises(ConfigError, match="max_tokens=2 leaves no room beside 2 special tokens: set at least 3"):
        list(window_tokens(tokenizer, texts, max_tokens=2))


def test_every_token_but_a_special_one_may_be_hidden(tokenizer: Any) -> None:
    ids = np.array([WORDS.index(word) for word in ("[CLS]", "w1", "[UNK]", MASK, "w4", "[SEP]")], dtype=np.int32)
    bare = np.array([WORDS.index("[CLS]"), WORDS.index("[SEP]")], dtype=np.int32)
    made = hideable(tokenizer, [(ids, 6), (bare, 2)], name="plain")
    assert len(made) == 1 and made.unit_tokens.tolist() == [1, 4]
    assert made.gold.tolist() == [WORDS.index("w1"), WORDS.index("w4")] and made.labels == WORDS
    with pytest.raises(DataError, match="plain: no text has a token that could be hidden"):
        hideable(tokenizer, [(bare, 2)], name="plain")
