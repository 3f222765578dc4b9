from __future__ import annotations

import json
from pathlib import Path

import pytest
from task_students import PAIRED, save_tokenizer

from configs.errors import ModelError
from student_train.models.task_tokenizer import load_task_tokenizer, require_pairs


@pytest.mark.parametrize("family", PAIRED)
def test_encoders_put_something_between_two_texts(tmp_path: Path, family: str) -> None:
    save_tokenizer(tmp_path, family=family)
    require_pairs(load_task_tokenizer(tmp_path), tmp_path)


def test_a_tokenizer_without_a_separator_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, family="llama")
    with pytest.raises(ModelError, match="no special token between two texts, which a task of pairs needs: name"):
        require_pairs(load_task_tokenizer(tmp_path), tmp_path)


def change_settings(folder: Path, **changes: str | None) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


def test_without_a_padding_token_it_pads_with_the_end(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    change_settings(tmp_path, pad_token=None, eos_token="[SEP]", padding_side="left")
    tokenizer = load_task_tokenizer(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.padding_side) == (3, "right")


def test_with_nothing_to_pad_with_it_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    change_settings(tmp_path, pad_token=None)
    with pytest.raises(ModelError, match="has neither pad_token nor eos_token: set pad_token"):
        load_task_tokenizer(tmp_path)


def test_a_tokenizer_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"its tokenizer does not load \(.*\): save it there with a tokenizer.json"):
        load_task_tokenizer(tmp_path)
