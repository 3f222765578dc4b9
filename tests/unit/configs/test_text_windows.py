"""Texts longer than a model reads, as a tokenizer of words cuts them."""

from __future__ import annotations

from typing import Any

import pytest
from task_heads import save_span_finder
from transformers import AutoTokenizer

from configs import text_windows
from configs.text_windows import (
    first_tokens,
    length_batches,
    passage_tokens,
    passage_windows,
    word_windows,
)
from configs.text_windows import (
    text_windows as windows_of_texts,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_span_finder(tmp_path_factory.mktemp("model")))


def test_each_word_has_its_first_token_in_one_window(tokenizer: Any) -> None:
    rows = [["sun", "rain", "sunrain", "oslo"], [], ["rain"]]
    windows, owners = word_windows(tokenizer, rows, longest=5)
    assert owners == [0, 0, 1, 2]
    # Three tokens fit between the special ones: sun rain sun | ##rain oslo.
    assert first_tokens(windows, owners) == [{0: 1, 1: 2, 2: 3}, {3: 2}, {}, {0: 1}]


def test_windows_of_texts_share_no_token_and_none_spans_two(tokenizer: Any) -> None:
    texts = ["sun rain oslo rome", "rain", "sun sunrain"]
    windows, owners = windows_of_texts(tokenizer, texts, longest=5)
    assert owners == [0, 0, 1, 2]
    inner = [window.tokens[1:-1] for window in windows]
    assert inner == [["sun", "rain", "oslo"], ["rome"], ["rain"], ["sun", "sun", "##rain"]]
    assert all((window.tokens[0], window.tokens[-1]) == ("[CLS]", "[SEP]") for window in windows)


def test_windows_of_a_passage_overlap_and_each_holds_the_question(tokenizer: Any) -> None:
    passage = "sun rain oslo rome sun rain"
    windows, owners = passage_windows(tokenizer, ["where"], [passage], longest=8)
    assert owners == [0] * len(windows) and len(windows) > 1
    words = [[passage[slice(*window.offsets[token])] for token in passage_tokens(window)] for window in windows]
    assert words == [["sun", "rain", "oslo", "rome"], ["oslo", "rome", "sun", "rain"]]
    assert {window.ids[1] for window in windows} == {tokenizer.convert_tokens_to_ids("where")}


def test_nothing_has_no_windows(tokenizer: Any) -> None:
    assert (
        windows_of_texts(tokenizer, [], longest=5)
        == word_windows(tokenizer, [], longest=5)
        == passage_windows(tokenizer, [], [], longest=8)
        == ([], [])
    )


def test_batches_hold_windows_of_about_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_windows, "BATCH_TOKENS", 10)
    assert list(length_batches([2, 5, 12, 4, 2])) == [[2], [1, 3], [0, 4]]
