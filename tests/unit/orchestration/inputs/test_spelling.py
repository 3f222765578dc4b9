"""What tokens stand for, in tokenizers of several families, against what they decode themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_tokenizers import byte_level, sentence_piece, word_piece, words_alone

from configs import ModelError
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.spelling import spelling_of


def files(tokenizer: Any) -> ModelFiles:
    shape: Any = None
    return ModelFiles(Path("model"), "a model", shape, tokenizer)


BYTE_LEVEL, SENTENCE_PIECE, BYTES = (files(each()) for each in (byte_level, sentence_piece, byte_tokenizer))
SPELLINGS = {each.tokenizer: spelling_of(each) for each in (BYTE_LEVEL, SENTENCE_PIECE, BYTES)}


@pytest.mark.parametrize("model", [BYTE_LEVEL, SENTENCE_PIECE, BYTES], ids=["byte-level", "pieces", "bytes"])
@given(st.text(alphabet="the a é€😀\n", max_size=12))
@settings(max_examples=60)
def test_the_tokens_of_a_text_spell_it(model: ModelFiles, text: str) -> None:
    tokenizer, spelling = model.tokenizer, SPELLINGS[model.tokenizer]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert spelling.text(ids) == text
    ends = spelling.ends(ids, text=text)
    assert ends is not None and len(ends) == len(ids)
    assert (ends[-1] if len(ends) else 0) == len(text.encode())
    # Up to every end that is no place within a character, the tokens are those of that part of the text.
    for at, end in enumerate(ends.tolist()):
        try:
            part = text.encode()[:end].decode()
        except UnicodeDecodeError:
            assert spelling.text(ids[: at + 1]) is None
        else:
            assert spelling.text(ids[: at + 1]) == part == tokenizer.decode(ids[: at + 1])


def test_a_byte_is_a_byte_whatever_it_is_printed_as() -> None:
    ours, theirs = SPELLINGS[BYTE_LEVEL.tokenizer], SPELLINGS[SENTENCE_PIECE.tokenizer]
    assert {bytes([byte]) for byte in range(256)} <= set(ours.tokens) & set(theirs.tokens)
    assert ours.blank_first is False and theirs.blank_first is True
    assert theirs.tokens[SENTENCE_PIECE.tokenizer.convert_tokens_to_ids("▁the")] == b" the"


def test_what_stands_for_no_text_has_none() -> None:
    spelling, tokenizer = SPELLINGS[BYTES.tokenizer], BYTES.tokenizer
    assert spelling.tokens[tokenizer.eos_token_id] is None
    assert spelling.text([tokenizer.eos_token_id]) is None
    assert spelling.ends([tokenizer.eos_token_id], text="") is None
    # A row of the matrix that no token has.
    assert spelling.text([len(tokenizer)]) is None


def test_added_tokens_that_are_words_spell_themselves() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<think>"])
    spelling = spelling_of(files(tokenizer))
    assert spelling.text(tokenizer.encode("a<think>b", add_special_tokens=False)) == "a<think>b"


def test_word_pieces_are_words_and_what_goes_on_within_one() -> None:
    model = files(word_piece())
    spelling = spelling_of(model)
    ids = model.tokenizer.encode("the tt!", add_special_tokens=False)
    assert spelling.text(ids) == "the tt !" == model.tokenizer.decode(ids)
    assert spelling.text(model.tokenizer.encode("é", add_special_tokens=False)) is None


def test_a_decoder_that_is_not_known_is_refused() -> None:
    with pytest.raises(ModelError, match=r"a model: which bytes its tokens stand for cannot be told.*BPEDecoder"):
        spelling_of(files(words_alone()))
