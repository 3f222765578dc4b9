"""The examples of a task as a model with a head reads them: token ids, units, and the right decisions.

Teacher and students read each example with tokenizers of their own. What both speak of are *units* with names that do
not depend on a tokenizer: the text itself, a word by its number, a token of a passage by the characters that it covers
(`student_train.feed.examples`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configs import ConfigError
from configs.task import TaskConfig
from configs.text_windows import split_of
from evaluation.tasks.examples import Example
from evaluation.tasks.spans import read_span
from student_train.feed.examples import UNKNOWN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UnitName = tuple[int, int]

WHOLE: UnitName = (0, 0)
"""The name of the one unit of an example of classification."""

OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class ReadExample:
    """An example as one model reads it.

    `token_ids` hold the special tokens; the second text of a pair begins at `split`. `units` name what is decided
    about and `unit_tokens` are the tokens that speak for them. `gold` has an entry a decision: a label, or the place of
    a unit among `units` (of spans the first, then the last); -1 where it is not known or was cut off. `cut` says that
    the model does not see all of it. `context` of the tokens are of what stands around it, and `context_cut` more would
    be if the model read further (`orchestration.inputs.wide_texts`).
    """

    token_ids: tuple[int, ...]
    split: int
    units: tuple[UnitName, ...]
    unit_tokens: tuple[int, ...]
    gold: tuple[int, ...]
    cut: bool
    context: int = 0
    context_cut: int = 0


def decision_labels(task: TaskConfig) -> tuple[str, ...]:
    """What a decision of a task is among, in the order of a student's logits; of spans the names of its ends.

    Raises:
        ConfigError: tasks of this kind are answered by text.
    """
    match task.kind:
        case "classification":
            return tuple(task.verbalisers)
        case "tagging":
            return (OUTSIDE, *(f"{prefix}-{kind}" for kind in task.verbalisers for prefix in "BI"))
        case "extractive_qa":
            return "first", "last"
        case _:
            raise ConfigError(
                f"task {task.name}: kind={task.kind} is answered by text, and students with a head do classification, "
                "tagging and extractive_qa: distil a language model for it"
            )


def read_with(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, task: TaskConfig, max_tokens: int
) -> list[ReadExample]:
    """The examples as the model of this tokenizer reads them, in their order; longer ones are cut to `max_tokens`.

    Raises:
        ConfigError: a pair is asked for, and the tokenizer puts nothing between two texts.
    """
    labels = {label: at for at, label in enumerate(decision_labels(task))}
    found = []
    for example, encoding in zip(examples, _encodings(tokenizer, examples, task=task, longest=max_tokens), strict=True):
        split = _split(encoding, task=task)
        units = _units(encoding, kind=task.kind)
        names = tuple(units)
        found.append(
            ReadExample(
                token_ids=tuple(encoding.ids),
                split=split,
                units=names,
                unit_tokens=tuple(units.values()),
                gold=_gold(example, names, labels=labels, task=task),
                cut=bool(encoding.overflowing),
            )
        )
    return found


def _encodings(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, task: TaskConfig, longest: int
) -> list[Any]:
    if not examples:
        return []
    if task.kind == "tagging":
        words = [list(example.tokens) for example in examples]
        read = tokenizer(words, is_split_into_words=True, truncation=True, max_length=longest)
    else:
        parts = [list(part) for part in zip(*(example.parts for example in examples), strict=True)]
        how = "only_second" if task.kind == "extractive_qa" else "longest_first"
        read = tokenizer(*parts, truncation=how, max_length=longest)
    return list(read.encodings or ())


def _split(encoding: Any, *, task: TaskConfig) -> int:
    """Where the second text begins; behind the end where there is one text."""
    split = split_of(encoding)
    if split is None:
        raise ConfigError(
            f"task {task.name}: the tokenizer puts no token between the two texts of a pair, so a model cannot tell "
            "them apart: take a model whose tokenizer separates pairs ([SEP], </s>)"
        )
    return split


def _units(encoding: Any, *, kind: str) -> dict[UnitName, int]:
    """The units that the model sees, each with its first token."""
    if kind == "classification":
        return {WHOLE: 0}
    found: dict[UnitName, int] = {}
    for token, (word, owner) in enumerate(zip(encoding.word_ids, encoding.sequence_ids, strict=True)):
        if kind == "tagging" and word is not None:
            found.setdefault((word, word), token)
        if kind == "extractive_qa" and owner == 1:
            start, end = encoding.offsets[token]
            found.setdefault((int(start), int(end)), token)
    return found


def _gold(example: Example, units: Sequence[UnitName], *, labels: dict[str, int], task: TaskConfig) -> tuple[int, ...]:
    match task.kind:
        case "classification":
            return (labels[example.gold[0]] if example.gold else UNKNOWN,)
        case "tagging":
            # A row of a tagging task without an entity has no spans either: its words are all outside.
            tags = [OUTSIDE] * len(example.tokens)
            for span in map(read_span, example.gold):
                tags[span.start : span.end] = [f"B-{span.type}", *[f"I-{span.type}"] * (span.end - span.start - 1)]
            return tuple(labels[tags[word]] if example.labelled else UNKNOWN for word, _ in units)
        case _:
            return _ends(example, units)


def _ends(example: Example, units: Sequence[UnitName]) -> tuple[int, int]:
    """The places of the units that the first accepted answer of the passage begins and ends with."""
    for answer in example.gold:
        start = example.context.find(answer) if answer else -1
        if start < 0:
            continue
        last = start + len(answer) - 1
        places = [place for place, (a, b) in enumerate(units) if a <= start < b or a <= last < b]
        first_covers = bool(places) and units[places[0]][0] <= start < units[places[0]][1]
        last_covers = bool(places) and units[places[-1]][0] <= last < units[places[-1]][1]
        if first_covers and last_covers:
            return places[0], places[-1]
    return UNKNOWN, UNKNOWN
