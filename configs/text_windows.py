"""How texts longer than a model reads are read: in windows, batched by length; where words and passages stand in them.

Teachers with a task head and students of tasks read texts alike, in torch or not; so nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included."""

STRIDE = 128
"""Tokens that neighbouring windows of a long passage share: an answer that one window cuts stands whole in another."""


def text_windows(tokenizer: Any, texts: Sequence[str], *, longest: int) -> tuple[list[Any], list[int]]:
    """The windows of texts, and the place of the text that each belongs to; no two share a token of it."""
    return _windows(tokenizer, list(texts), longest=longest, truncation=True)


def word_windows(tokenizer: Any, rows: Sequence[Sequence[str]], *, longest: int) -> tuple[list[Any], list[int]]:
    """The windows of texts that are given as words, and the place of the text that each belongs to."""
    return _windows(tokenizer, [list(row) for row in rows], longest=longest, is_split_into_words=True, truncation=True)


def passage_windows(
    tokenizer: Any, questions: Sequence[str], passages: Sequence[str], *, longest: int
) -> tuple[list[Any], list[int]]:
    """The windows of passages, each behind the whole question, and the place of the passage that each belongs to.

    Neighbours share tokens.
    """
    return _windows(
        tokenizer, list(questions), list(passages), longest=longest, truncation="only_second",
        stride=min(STRIDE, longest // 4),
    )  # fmt: skip


def first_tokens(windows: Sequence[Any], owners: Sequence[int]) -> list[dict[int, int]]:
    """The first token of each word, by window; a word that a window cuts has it in the former of the two."""
    seen: set[tuple[int, int]] = set()
    found: list[dict[int, int]] = []
    for window, owner in zip(windows, owners, strict=True):
        firsts: dict[int, int] = {}
        for token, word in enumerate(window.word_ids):
            if word is not None and (owner, word) not in seen:
                seen.add((owner, word))
                firsts[word] = token
        found.append(firsts)
    return found


def passage_tokens(window: Any) -> list[int]:
    """The places of the tokens of a window that belong to the passage."""
    return [token for token, part in enumerate(window.sequence_ids) if part == 1]


def split_of(encoding: Any) -> int | None:
    """Where the second of two texts begins, behind the end of one text; None where no token stands between the two."""
    owners = encoding.sequence_ids
    if 1 not in owners:
        return len(owners)
    split = int(owners.index(1))
    return split if split and owners[split - 1] != 0 else None


def length_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of windows by length, longest first, cut where padding all to the longest would pass `BATCH_TOKENS`."""
    left = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    while left:
        size = max(1, BATCH_TOKENS // lengths[left[0]])
        yield left[:size]
        left = left[size:]


def _windows(tokenizer: Any, *texts: Sequence[Any], longest: int, **options: Any) -> tuple[list[Any], list[int]]:
    if not texts[0]:
        return [], []
    read = tokenizer(*texts, max_length=longest, return_overflowing_tokens=True, **options)
    return list(read.encodings), list(map(int, read["overflow_to_sample_mapping"]))
