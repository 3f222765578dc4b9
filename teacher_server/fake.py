"""A teacher without a model: deterministic, quick, and consistent between writing and scoring.

The distribution of the next token is a pure function of (seed, the last three tokens), so scoring a generated
sequence gives the rows of its generation bit for bit. Everything that needs a teacher runs without one through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from cache.identity import TeacherIdentity
from teacher_server.function_teacher import FunctionTeacher

if TYPE_CHECKING:
    from teacher_server.grammar import Grammars

CONTEXT = 3
"""Tokens that the next one depends on."""

SPREAD = 2.5
"""Standard deviation of the logits: a top-1 probability near 0.2 at a vocabulary of 512."""

EOS_LOGIT = 2.0
"""Added to the logit of the end token, so that sequences end after some tens of tokens."""

_REMEMBERED_BYTES = 64 << 20

Context = tuple[int, ...]


class FakeTeacher(FunctionTeacher):
    """A `SequenceSource` whose distributions are noise that depends on the context alone.

    Args:
        identity: Stamped on the records as a real engine does.
        vocab: V.
        seed: Two teachers of different seeds believe different things.
        eos_id: The token whose probability is raised.
        max_model_len: Tokens of the longest sequence, prompt and answer together.
        grammars: See `FunctionTeacher`.
    """

    def __init__(
        self,
        identity: TeacherIdentity,
        *,
        vocab: int,
        seed: int = 0,
        eos_id: int,
        max_model_len: int = 4096,
        grammars: Grammars | None = None,
    ) -> None:
        super().__init__(
            identity, vocab=vocab, next_logprobs=self._row_after, max_model_len=max_model_len, grammars=grammars
        )
        self._seed = seed
        self._eos_id = eos_id
        remembered = lru_cache(maxsize=max(1, _REMEMBERED_BYTES // (4 * vocab)))
        self._logprobs: Callable[[Context], Float32[np.ndarray, " V"]] = remembered(self._draw_row)

    def _row_after(self, tokens: Sequence[int]) -> Float32[np.ndarray, " V"]:
        return self._logprobs(tuple(tokens[-CONTEXT:]))

    def _draw_row(self, context: Context) -> Float32[np.ndarray, " V"]:
        logits = np.random.default_rng((self._seed, len(context), *context)).normal(scale=SPREAD, size=self._vocab)
        logits[self._eos_id] += EOS_LOGIT
        logits -= logits.max()
        row: Float32[np.ndarray, " V"] = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return row
