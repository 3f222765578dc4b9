"""Texts as a teacher with a task head sees them: token ids, where the second text of a pair begins, where tokens stand.

They become the tokens that a fill makes of the same texts, so both find each other's rows. A text that is too long for
the teacher is not cut here: whoever asks is told. What spells a special token is refused (`teacher_server.http.texts`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cache.signals import Signal, SignalRequest
from configs.text_windows import split_of
from teacher_server.http.texts import TextError, control_tokens, require_plain

Place = tuple[int, int, int]
"""The number of a text or word, and characters in it, the end excluded."""


@dataclass(frozen=True, slots=True)
class ReadText:
    """T tokens. `split` is where the second text of a pair begins, T without one.

    `places` says where each token stands, None of a special one; it is None as a whole of a text that is not known.
    """

    token_ids: tuple[int, ...]
    split: int
    places: tuple[Place | None, ...] | None = None

    def asks(self, signal: Signal) -> SignalRequest:
        """The question what the teacher sees in it."""
        return SignalRequest(self.token_ids, self.split, signal)


@runtime_checkable
class ReadsTexts(Protocol):
    """Whoever makes of a body's rows what a teacher sees.

    Of all methods:

    Raises:
        TextError: the teacher cannot be asked about it.
    """

    def text(self, text: str, pair: str | None = None) -> ReadText:
        """A text, or a pair of texts."""
        ...

    def words(self, words: Sequence[str]) -> ReadText:
        """A text as its words."""
        ...

    def ids(self, token_ids: tuple[int, ...], split: int | None) -> ReadText:
        """A text as token ids; without `split` it is one text."""
        ...


class SignalTexts:
    """The tokenizer of one teacher (a fast one of transformers), for many threads: one of them uses it at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._control = control_tokens(tokenizer)
        self._lock = threading.Lock()

    def text(self, text: str, pair: str | None = None) -> ReadText:
        """A text, or a pair of texts.

        Raises:
            TextError: one makes no token, spells a special one, or the tokenizer does not keep the two apart.
        """
        texts = (text,) if pair is None else (text, pair)
        encoding = self._encoded(*([each] for each in texts), said=texts)
        places = [
            None if owner is None else (int(owner), *map(int, offsets))
            for owner, offsets in zip(encoding.sequence_ids, encoding.offsets, strict=True)
        ]
        return _read(encoding, places, parts=len(texts))

    def words(self, words: Sequence[str]) -> ReadText:
        """A text as its words, some of which may make no token.

        Raises:
            TextError: none does, or one spells a special token.
        """
        encoding = self._encoded([list(words)], said=words, is_split_into_words=True)
        places = [
            None if word is None else (int(word), *map(int, offsets))
            for word, offsets in zip(encoding.word_ids, encoding.offsets, strict=True)
        ]
        return _read(encoding, places, parts=1)

    def ids(self, token_ids: tuple[int, ...], split: int | None) -> ReadText:
        """See `ReadsTexts`; they are what they are."""
        return ReadText(token_ids, len(token_ids) if split is None else split)

    def _encoded(self, *parts: Sequence[Any], said: Sequence[str], **options: Any) -> Any:
        for text in said:
            require_plain(text, control=self._control)
        with self._lock:
            [encoding] = self._tokenizer(*parts, **options).encodings
        return encoding


def _read(encoding: Any, places: Sequence[Any], *, parts: int) -> ReadText:
    if set(range(parts)) - set(encoding.sequence_ids):
        raise TextError("a text of which no token is made")
    split = split_of(encoding)
    if split is None:
        raise TextError("the tokenizer of this teacher puts nothing between two texts: it reads no pairs")
    return ReadText(tuple(encoding.ids), split, tuple(places))
