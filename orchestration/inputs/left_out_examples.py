"""Examples that nobody learns from: those that a model reads as it reads a held-out one, and those that were forgotten.

What was forgotten (`distill cache forget`) is known by the tokens of whoever was asked about it, so a teacher has to
say how it reads an example. Held-out examples that were forgotten go as well: they would be asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.erasures import FORGOTTEN
from configs import DataError
from configs.task import TaskConfig
from configs.task_stages import GOLD
from configs.task_teacher import TaskTeacherConfig
from evaluation.tasks.examples import Example
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_texts import read_with
from orchestration.inputs.tasks import SPLITS, LoadedTask, with_splits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Read = Callable[[Sequence[Example]], Sequence[Hashable]]
"""Examples as a model reads them: equal where it cannot tell them apart."""


IsForgotten = Callable[[Sequence[Example]], Sequence[bool]]
"""Says of each example whether it was forgotten."""


def without_forgotten(task: LoadedTask, sets: TaskSets, *, is_forgotten: IsForgotten) -> tuple[LoadedTask, TaskSets]:
    """The task and the sets without what was forgotten, and how many rows that are.

    Raises:
        DataError: nothing is left of a split or of a set.
    """
    splits = {split: is_forgotten(getattr(task, split)) for split in SPLITS}
    kept = {name: _kept(examples, is_forgotten(examples)) for name, examples in sets.sets.items()}
    gone = sum(len(examples) - len(kept[name]) for name, examples in sets.sets.items())
    held_out = sum(map(sum, (splits["dev"], splits["test"])))
    if not gone and not held_out and not any(splits["train"]):
        return task, sets
    left = {split: _kept(getattr(task, split), found) for split, found in splits.items()}
    empty = next((name for name, each in {**left, **kept}.items() if not each), None)
    if empty is not None:
        raise DataError(f"{empty}: every row was forgotten (distill cache forget): name other data")
    lines = [
        f"{split} row {each.row}: {FORGOTTEN}"
        for split, found in splits.items()
        for each in (example for example, is_gone in zip(getattr(task, split), found, strict=True) if is_gone)
    ]
    said = f"{gone + held_out:,} rows of the data were forgotten and are left out: remove them from the data as well"
    return with_splits(task, left, set_aside=lines), replace(sets, sets=kept, notes=(*sets.notes, said))


def _kept(examples: Sequence[Example], gone: Sequence[bool]) -> tuple[Example, ...]:
    return tuple(example for example, is_gone in zip(examples, gone, strict=True) if not is_gone)


def apart_from_held_out(sets: TaskSets, task: LoadedTask, *, read: Read) -> TaskSets:
    """The sets without texts that a model reads as it reads one of dev, or, where they are not gold, one of test.

    Gold examples that stand in test too are counted with the task: published results have learned from them.

    Raises:
        DataError: nothing is left of a set.
    """
    dev = set(read(task.dev))
    held_out = dev | set(read(task.test))
    kept, notes = {}, list(sets.notes)
    for name, examples in sets.sets.items():
        unseen = dev if name == GOLD else held_out
        apart = [one not in unseen for one in read(examples)]
        kept[name] = tuple(example for example, is_apart in zip(examples, apart, strict=True) if is_apart)
        if not kept[name]:
            raise DataError(f"{name}: every text is read as one of dev or test is: name others, or raise max_tokens")
        if not all(apart):
            notes.append(f"{name}: {apart.count(False)} texts left out that are read as others of dev or test are")
    return replace(sets, sets=kept, notes=tuple(notes))


def as_read_by(teacher: TaskTeacherConfig, tokenizer: PreTrainedTokenizerBase, *, task: TaskConfig) -> Read:
    """How a teacher with this tokenizer reads examples: one with a head no further than `max_tokens`, others whole."""

    def read(examples: Sequence[Example]) -> Sequence[Hashable]:
        if teacher.answers != "head":
            return [example.question for example in examples]
        found = read_with(tokenizer, examples, task=task, max_tokens=teacher.max_tokens)
        return [(one.token_ids, one.split) for one in found]

    return read
