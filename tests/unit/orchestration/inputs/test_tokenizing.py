"""Tokens of many texts: the same as of one after the other, each object once, and threads only as long as they are let."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.tokenizing import PARALLEL, shared, tokenizing_on_all_cores, tokens_of_all


def test_texts_are_tokenised_as_one_after_the_other() -> None:
    tokenizer, texts = byte_tokenizer(), ["one", "", "two <|eos|>", "one"]
    found = tokens_of_all(tokenizer, texts, add_special_tokens=False)
    assert found == [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert tokens_of_all(tokenizer, [], add_special_tokens=True) == []


@given(st.lists(st.integers(0, 300_000)))
def test_the_same_token_is_the_same_object(ids: list[int]) -> None:
    # Python itself has small integers once, and makes others anew.
    one, other = shared(ids), shared([int(str(each)) for each in ids])
    assert one == other == tuple(ids)
    assert all(here is there for here, there in zip(one, other, strict=True))


@pytest.mark.parametrize("before", [None, "false"])
def test_threads_are_let_for_a_time(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv(PARALLEL, raising=False)
    if before is not None:
        monkeypatch.setenv(PARALLEL, before)
    with pytest.raises(ValueError, match="no"), tokenizing_on_all_cores():
        assert os.environ[PARALLEL] == "true"
        raise ValueError("no")
    assert os.environ.get(PARALLEL) == before
