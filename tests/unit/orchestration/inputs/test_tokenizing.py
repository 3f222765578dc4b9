"""Tokens of many texts: the same as of one after the other, and threads only as long as they are let."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.tokenizing import PARALLEL, tokenizing_on_all_cores, tokens_of_all


class OwnWay(PreTrainedTokenizerFast):
    """A tokenizer that does something to a text before the library sees it."""

    def _encode_plus(self, text: Any, **options: Any) -> Any:
        return super()._encode_plus([each.upper() for each in text], **options)


def own_way() -> PreTrainedTokenizerFast:
    given = byte_tokenizer()
    return OwnWay(tokenizer_object=given.backend_tokenizer, eos_token=given.eos_token)


@pytest.mark.parametrize("made", [byte_tokenizer, own_way])
@pytest.mark.parametrize("special", [False, True])
def test_texts_are_tokenised_as_by_transformers_one_after_the_other(
    made: Callable[[], PreTrainedTokenizerFast], special: bool
) -> None:
    tokenizer, texts = made(), ["one", "", "two <|eos|>", "ünï\u2028", "one"]
    expected = [tuple(tokenizer([text], add_special_tokens=special)["input_ids"][0]) for text in texts]
    # What its file may say of cutting and padding is not meant for prompts.
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert tokens_of_all(tokenizer, texts, add_special_tokens=special) == expected
    assert tokens_of_all(tokenizer, [], add_special_tokens=special) == []


@pytest.mark.parametrize("before", [None, "false"])
def test_threads_are_let_for_a_time(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv(PARALLEL, raising=False)
    if before is not None:
        monkeypatch.setenv(PARALLEL, before)
    with pytest.raises(ValueError, match="no"), tokenizing_on_all_cores():
        assert os.environ[PARALLEL] == "true"
        raise ValueError("no")
    assert os.environ.get(PARALLEL) == before
