"""A text is found in the token ids of tokenizers that lose something of it, and only as it stands in those of others."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from orchestration.cache_tools.text_patterns import TextPattern
from orchestration.cache_tools.token_patterns import TokenPattern
from orchestration.inputs.random_models import byte_tokenizer

TEXT = "Ask Zoë@mail.com, please"
PIECES = ("Ask", "Zoë", "ask", "zoe", "mail", "com", "please", "@", ".", ",", "Ab", "cd", "ab")


def encoder(*, uncased: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of words and marks as encoders have them."""
    backend = Tokenizer(WordPiece({word: at for at, word in enumerate(("[UNK]", *PIECES))}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("pattern", "bytewise", "cased", "uncased"),
    [
        ("Zoë", True, True, True),
        ("zoe", False, False, True),
        ("zoë@MAIL", False, False, True),
        (r"Zoë@mail\.com", True, True, True),
        ("com, please", True, False, False),
        ("mail please", False, False, False),
        ("Peter", False, False, False),
    ],
)
def test_what_a_tokenizer_loses_is_no_matter(pattern: str, *, bytewise: bool, cased: bool, uncased: bool) -> None:
    for tokenizer, found in (
        (byte_tokenizer(), bytewise),
        (encoder(uncased=False), cased),
        (encoder(uncased=True), uncased),
    ):
        ids = np.array(tokenizer.encode(TEXT), np.int32)
        assert TokenPattern.of(TextPattern(pattern), tokenizer).found_in(ids) is found
