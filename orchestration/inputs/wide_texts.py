"""Examples with what stands around them as a teacher with a head reads them: the same units, more tokens.

The example's own tokens are those that the teacher would read of it alone; tokens of its surroundings are laid around
them, never joined with them. So a token never reaches across the boundary, a unit has the name that it has for every
student, and its token lies further on by what stands before. Tagging and question answering have the surroundings on
both sides of the own words or passage; a text of classification is followed by them as the second text of a pair.

What is read is at most `max_tokens` long. The own tokens are kept first, then a passage, whose end is cut; what room is
left the two sides share, and each loses what is farthest away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from configs import ConfigError, DataError
from configs.task import TaskConfig
from evaluation.tasks.examples import Example
from evaluation.tasks.surroundings import Piece, around_of
from orchestration.inputs.task_texts import ReadExample, read_with

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]

GAP = "\n"
"""Between two texts: white space that no text is changed by, and that tokenizers of bytes keep."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens that a tokenizer puts before one text, behind it, and between two."""

    before: Tokens
    between: Tokens
    behind: Tokens

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, texts: int) -> Frame:
        """That of one text or of two.

        Raises:
            ConfigError: it makes nothing of a letter, so where texts stand among special tokens is not known.
        """
        encoding = tokenizer(*(["a"],) * texts).encodings[0]
        ids, owners = encoding.ids, encoding.sequence_ids
        own = [[at for at, owner in enumerate(owners) if owner == text] for text in range(texts)]
        if not all(own):
            raise ConfigError("teacher_context: the teacher's tokenizer makes no token of 'a': name another teacher")
        between = tuple(ids[own[0][-1] + 1 : own[1][0]]) if texts == 2 else ()
        return cls(tuple(ids[: own[0][0]]), between, tuple(ids[own[-1][-1] + 1 :]))


@dataclass(frozen=True, slots=True)
class Around:
    """Tokens of what stands around an example, in the order of reading."""

    passage: Tokens
    before: Tokens
    after: Tokens

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.passage) + len(self.before) + len(self.after)

    def within(self, room: int) -> Around:
        """As much of it as `room` tokens hold."""
        passage = self.passage[: max(0, room)]
        left = max(0, room - len(passage))
        most = max(left // 2, left - len(self.after))
        before = self.before[max(0, len(self.before) - most) :]
        return Around(passage, before, self.after[: left - len(before)])


def read_wide(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, task: TaskConfig, max_tokens: int
) -> list[ReadExample]:
    """The examples as a teacher of this tokenizer reads them with what stands around them, in their order.

    One without surroundings, or that leaves no room for any, is read alone (`read_with`).

    Raises:
        ConfigError: the tokenizer puts nothing between the two texts of a pair.
        DataError: it does not frame every text alike.
    """
    alone = read_with(tokenizer, examples, task=task, max_tokens=max_tokens)
    found = _tokens_around(tokenizer, examples, words=task.kind == "tagging")
    if not any(around.count for around in found):
        return alone
    frame = Frame.of(tokenizer, texts=2 if task.kind == "extractive_qa" else 1)
    pair = Frame.of(tokenizer, texts=2) if task.kind == "classification" else None
    if pair is not None and not pair.between:
        raise ConfigError(
            f"task {task.name}: the tokenizer puts no token between the two texts of a pair, and teacher_context is "
            "the second: take a model whose tokenizer separates pairs ([SEP], </s>)"
        )
    wide = []
    for read, around in zip(alone, found, strict=True):
        if pair is not None:
            wide.append(_paired(read, around, (frame, pair), max_tokens))
            continue
        wide.append(_inserted(read, around, frame, max_tokens))
        require_aligned(read, wide[-1])
    return wide


def require_aligned(alone: ReadExample, wide: ReadExample) -> None:
    """Refuse a wide reading whose units are not those of the example alone, each at a token of the same text.

    Raises:
        DataError: naming the first unit that is not.
    """
    if alone.units != wide.units or len(alone.unit_tokens) != len(wide.unit_tokens):
        raise DataError(f"{len(wide.units)} units are read with teacher_context, and {len(alone.units)} without it")
    for name, own, moved in zip(alone.units, alone.unit_tokens, wide.unit_tokens, strict=True):
        if alone.token_ids[own] != wide.token_ids[moved]:
            raise DataError(
                f"unit {name} is token {alone.token_ids[own]} of the text alone and {wide.token_ids[moved]} with "
                "teacher_context: its tokenizer does not frame every text alike, so name another teacher"
            )


def _tokens_around(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, words: bool) -> list[Around]:
    """The tokens of what stands around each example."""
    around = [around_of(example) for example in examples]
    passages = _encoded(tokenizer, [[each.passage] if each.passage else [] for each in around], words=words, gap=False)
    before = _encoded(tokenizer, [each.before for each in around], words=words, gap=False)
    after = _encoded(tokenizer, [each.after for each in around], words=words, gap=True)
    return [Around(*parts) for parts in zip(passages, before, after, strict=True)]


def _encoded(
    tokenizer: PreTrainedTokenizerBase, each: Sequence[Sequence[Piece]], *, words: bool, gap: bool
) -> list[Tokens]:
    """Token ids of pieces, one text of each list of them; a `gap` stands in front of it, or else behind."""
    if not each:
        return []
    options: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
    if words:
        rows = [[word for piece in pieces for word in piece] for pieces in each]
        read = tokenizer(rows, is_split_into_words=True, **options).input_ids
    else:
        texts = [GAP.join(piece[0] for piece in pieces) for pieces in each]
        read = tokenizer([GAP + text if gap else text + GAP for text in texts], **options).input_ids
    return [tuple(ids) if pieces else () for ids, pieces in zip(read, each, strict=True)]


def _inserted(read: ReadExample, around: Around, frame: Frame, max_tokens: int) -> ReadExample:
    """An example with its surroundings on both sides of its words, or of its passage."""
    start = read.split if frame.between else len(frame.before)
    end = len(read.token_ids) - len(frame.behind)
    # A question may be so long that nothing of its passage is read.
    shown = around.within(max_tokens - len(read.token_ids) if start < end else 0)
    front = shown.passage + shown.before
    ids = read.token_ids[:start] + front + read.token_ids[start:end] + shown.after + read.token_ids[end:]
    return replace(
        read,
        token_ids=ids,
        split=read.split if frame.between else len(ids),
        unit_tokens=tuple(token + len(front) for token in read.unit_tokens),
        context=shown.count,
        context_cut=around.count - shown.count,
    )


def _paired(read: ReadExample, around: Around, frames: tuple[Frame, Frame], max_tokens: int) -> ReadExample:
    """A text of classification with its surroundings as a second text; `frames` are those of one text and of two."""
    frame, pair = frames
    own = read.token_ids[len(frame.before) : len(read.token_ids) - len(frame.behind)]
    begun = pair.before + own + pair.between
    shown = around.within(max_tokens - len(begun) - len(pair.behind))
    if not shown.count:
        return replace(read, context_cut=around.count)
    return replace(
        read,
        token_ids=begun + shown.passage + shown.before + shown.after + pair.behind,
        split=len(begun),
        context=shown.count,
        context_cut=around.count - shown.count,
    )
