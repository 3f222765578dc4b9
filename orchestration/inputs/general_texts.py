"""Plain text as encoders read it in general stages: windows of tokens, every one of which may be hidden.

A window has the special tokens of any text; two windows of a text share no token. Learned texts stand there once, and
not among those that are held out: neither those of `data.plain.dev` nor dev and test examples of the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs import ConfigError, DataError, ModelError
from configs.schema import PlainConfig
from configs.text_windows import text_windows
from configs.visible_text import REASON_CHARACTERS, visible
from evaluation.tasks.contamination import same_text
from orchestration.inputs.plain_text import why_refused
from orchestration.inputs.prompt_reader import control_tokens
from orchestration.inputs.rows import split_rows
from student_train.feed.examples import ExampleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ_TOGETHER = 1000
"""Texts that are turned into tokens at once."""

Tokens = tuple[NDArray[np.int32], int]
"""A text as a model reads it: its token ids, and where the second text of a pair begins (behind the end: none)."""


@dataclass(frozen=True, slots=True)
class PlainTexts:
    """The texts of `data.plain`, to be learned and held out, and what there is to say about them, a line each."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    notes: tuple[str, ...]


def read_general_texts(
    config: PlainConfig, *, tokenizer: PreTrainedTokenizerBase, held_out: Iterable[str]
) -> PlainTexts:
    """The texts of both splits; `held_out` are texts of the task that nothing may be learned of.

    Raises:
        DataError: a split cannot be read, or no text is left of it.
    """
    notes: list[str] = []
    # What is held out first, so that nothing of it is learned.
    dev = _texts(config, "dev", tokenizer=tokenizer, apart_from=(), notes=notes)
    train = _texts(config, "train", tokenizer=tokenizer, apart_from=(*dev, *held_out), notes=notes)
    return PlainTexts(train, dev, tuple(notes))


def window_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> Iterator[Tokens]:
    """The windows of texts, one text after the other.

    Raises:
        ConfigError: there is no room for a token beside the special ones.
    """
    special = tokenizer.num_special_tokens_to_add()
    if special >= max_tokens:
        raise ConfigError(
            f"data.plain.max_tokens={max_tokens} leaves no room beside {special} special tokens: set at least "
            f"{special + 1}"
        )
    for start in range(0, len(texts), READ_TOGETHER):
        windows, _ = text_windows(tokenizer, texts[start : start + READ_TOGETHER], longest=max_tokens)
        for window in windows:
            yield np.array(window.ids, dtype=np.int32), len(window.ids)


def vocabulary(tokenizer: Any) -> tuple[str, ...]:
    """The tokens of a tokenizer by their ids."""
    return tuple(map(str, tokenizer.convert_ids_to_tokens(range(len(tokenizer)))))


def hideable(tokenizer: PreTrainedTokenizerBase, texts: Iterable[Tokens], *, name: str) -> ExampleSet:
    """Texts as examples: what is decided is each token that is not a special one, and right is what stands there.

    Raises:
        DataError: there is no such token.
        ModelError: ids beyond the tokenizer's length.
    """
    special = np.array(sorted(set(tokenizer.all_special_ids)), dtype=np.int32)
    kept: list[NDArray[np.int32]] = []
    places: list[NDArray[np.int32]] = []
    splits: list[int] = []
    for ids, split in texts:
        at = np.flatnonzero(~np.isin(ids, special)).astype(np.int32)
        if len(at):
            kept.append(ids)
            places.append(at)
            splits.append(split)
    if not kept:
        raise DataError(f"{name}: no text has a token that could be hidden: name other files")
    tokens = vocabulary(tokenizer)
    gold = np.concatenate([ids[at] for ids, at in zip(kept, places, strict=True)])
    if int(gold.max()) >= len(tokens):
        raise ModelError(f"its tokenizer gives the id {int(gold.max())} and has {len(tokens)} tokens: save it again")
    return ExampleSet(
        kind="tagging",
        labels=tokens,
        token_ids=np.concatenate(kept),
        token_offsets=_offsets(kept),
        split=np.array(splits, dtype=np.int32),
        unit_offsets=_offsets(places),
        unit_tokens=np.concatenate(places),
        gold=gold,
        teacher=None,
    )


def _texts(
    config: PlainConfig,
    name: str,
    *,
    tokenizer: PreTrainedTokenizerBase,
    apart_from: Iterable[str],
    notes: list[str],
) -> tuple[str, ...]:
    seen, control = set(map(same_text, apart_from)), control_tokens(tokenizer)
    texts: list[str] = []
    refused: list[str] = []
    left_out = 0
    for number, row in split_rows(getattr(config, name), split=f"plain.{name}"):
        reason = row if isinstance(row, str) else why_refused(row, field=config.field, control=control)
        if reason is not None:
            refused.append(visible(f"row {number}: {reason}", at_most=REASON_CHARACTERS))
            continue
        assert not isinstance(row, str)
        key = same_text(row[config.field])
        if key in seen:
            left_out += 1
        else:
            texts.append(row[config.field])
        seen.add(key)
    if refused:
        notes.append(f"plain.{name}: {len(refused):,} rows set aside; the first: {refused[0]}")
    if left_out:
        notes.append(f"plain.{name}: {left_out:,} texts left out that stand there twice, or among those held out")
    if not texts:
        raise DataError(f"data.plain.{name}: no text is left of it{f'; {refused[0]}' if refused else ''}: name others")
    return tuple(texts)


def _offsets(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)
