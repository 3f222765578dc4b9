"""Answers held to a grammar by teachers that are no engine, with the library that vLLM has for it: llguidance."""

from __future__ import annotations

import llguidance
import llguidance.hf
import numpy as np
from jaxtyping import Bool
from transformers import PreTrainedTokenizerFast

BITS = 32
"""Of a word of a mask."""


class Grammars:
    """The grammars of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, vocab: int) -> None:
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, vocab)
        self._vocab = vocab

    def refusal(self, grammar: str) -> str | None:
        """Why a text is not a grammar, in one line, or None."""
        try:
            # What does not look like Lark is taken for GBNF and converted, which raises where it is neither.
            found = llguidance.LLMatcher.validate_grammar(llguidance.grammar_from("grammar", grammar), self._tokenizer)
        except ValueError as error:
            found = str(error)
        return " ".join(found.split()) or None

    def begin(self, grammar: str) -> Held:
        """An answer that nothing is written of yet."""
        matcher = llguidance.LLMatcher(self._tokenizer, llguidance.grammar_from("grammar", grammar))
        return Held(matcher, vocab=self._vocab)


class Held:
    """An answer that is held to a grammar, as far as it is written."""

    def __init__(self, matcher: llguidance.LLMatcher, *, vocab: int) -> None:
        self._matcher, self._vocab = matcher, vocab

    def allowed(self) -> Bool[np.ndarray, " V"]:
        """The tokens that may come next, the one of the end among them where the answer may end."""
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)
        bits = (words[:, None] >> np.arange(BITS, dtype=np.uint32)) & 1
        found: Bool[np.ndarray, " V"] = bits.reshape(-1)[: self._vocab].astype(np.bool_)
        return found

    def take(self, token: int) -> None:
        """Write one of these."""
        self._matcher.consume_token(token)
