"""A pattern looked for in token ids, as far as the tokenizer that made them lets their text be read again.

Tokenizers of encoders often keep no case and no accents, and put spaces around marks: what was `Zoë@mail.com` reads
`zoe @ mail. com`. Such a text is also read without the spaces, and the pattern without case and accents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from orchestration.cache_tools.text_patterns import TextPattern

_PROBE = "Ab@cd"
_AROUND_MARKS = re.compile(r"\s*([^\w\s])\s*")


@dataclass(frozen=True, slots=True)
class TokenPattern:
    """A pattern and the tokenizer that token ids are read with; see `of`."""

    pattern: TextPattern
    tokenizer: PreTrainedTokenizerBase
    folded: bool
    spaced: bool

    @classmethod
    def of(cls, pattern: TextPattern, tokenizer: PreTrainedTokenizerBase) -> TokenPattern:
        """As this tokenizer keeps texts: `folded` without case, `spaced` with spaces around marks."""
        read = _read(tokenizer, tokenizer.encode(_PROBE, add_special_tokens=False))
        folded = _PROBE not in _joined(read) and _PROBE.lower() in _joined(read)
        return cls(pattern.folded() if folded else pattern, tokenizer, folded, _PROBE.lower() not in read.lower())

    def found_in(self, token_ids: NDArray[np.int32]) -> bool:
        """Whether any part of the text matches."""
        text = _read(self.tokenizer, token_ids.tolist())
        return self.pattern.found_in(text) or (self.spaced and self.pattern.found_in(_joined(text)))


def _read(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    text = tokenizer.decode(token_ids)
    assert isinstance(text, str)
    return text


def _joined(text: str) -> str:
    """A text without the spaces around marks."""
    return _AROUND_MARKS.sub(r"\1", text)
