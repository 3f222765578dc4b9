"""What each token of a teacher stands for, and the name that it is told by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doors import EOS, FIRST_CHARACTER, SPECIAL, ToyTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from other_tokenizers import byte_level, sentence_piece

from orchestration.inputs.models import ModelFiles
from orchestration.inputs.spelling import spelling_of
from teacher_server.http.pieces import Pieces, numbered
from teacher_server.http.texts import Texts

PIECES = Pieces({5: b" a", 6: b"\xe2\x82", 7: b"\xac", 8: b""}.get, names={1: "<s>"}, blank_first=True)


def real(tokenizer: Any) -> tuple[Any, Pieces]:
    """A tokenizer of transformers with the pieces that the door has of it."""
    shape: Any = None
    return tokenizer, Texts(
        tokenizer, spelling=spelling_of(ModelFiles(Path("model"), "a model", shape, tokenizer))
    ).pieces


REAL = {"byte-level": real(byte_level()), "pieces": real(sentence_piece())}


def test_a_token_is_told_by_its_text_its_bytes_or_its_name() -> None:
    assert [PIECES.name(token) for token in (5, 6, 7, 1, 8, 99)] == [
        " a", "bytes:\\xe2\\x82", "bytes:\\xac", "<s>", "token_id:8", "token_id:99",
    ]  # fmt: skip
    assert numbered(99) == "token_id:99"


def test_the_blank_of_a_text_s_first_word_is_not_the_text_s() -> None:
    assert PIECES.pieces([1, 5, 5], opens_text=True) == [b"", b"a", b" a"]
    assert PIECES.pieces([1, 5, 5]) == [b"", b" a", b" a"]
    assert PIECES.pieces([1], opens_text=True) == [b""]
    plain = Pieces({5: b" a"}.get, names={})
    assert plain.pieces([5], opens_text=True) == [b" a"]


@pytest.mark.parametrize("kind", REAL)
@given(st.text(alphabet="the a é€😀\n", max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_pieces_of_a_text_are_its_bytes(kind: str, text: str) -> None:
    tokenizer, pieces = REAL[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(pieces.pieces(ids, opens_text=True)).decode() == text


@pytest.mark.parametrize("kind", REAL)
def test_tokens_of_other_bytes_have_other_names_and_ends_have_their_own(kind: str) -> None:
    tokenizer, pieces = REAL[kind]
    # A piece and the byte that it may be written with are two tokens of one text.
    spelt = {pieces.piece(token) for token in range(len(tokenizer))} - {b""}
    assert len({pieces.name(token) for token in range(len(tokenizer)) if pieces.piece(token)}) == len(spelt)
    assert pieces.name(tokenizer.eos_token_id) == "</s>"
    assert pieces.name(len(tokenizer) + 3) == numbered(len(tokenizer) + 3)


def test_without_a_vocabulary_each_token_is_decoded_by_itself() -> None:
    pieces = Texts(ToyTokenizer(), stop_ids=(EOS,)).pieces
    assert pieces.pieces([SPECIAL["<bos>"], FIRST_CHARACTER + ord("a"), EOS]) == [b"", b"a", b""]
    assert [pieces.name(token) for token in (EOS, FIRST_CHARACTER + ord("a"), 17)] == ["<eos>", "a", "token_id:17"]
