"""From the examples of a task to the micro-batches of this process, one optimiser step at a time.

As for sequences (`student_train.feed.steps`) everything is a pure function of the examples and the settings: the order
of an epoch, which examples make up a step, which process takes which of them, how many decisions the step has. So
another number of processes sees the same steps, and a resumed training those that are left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count, islice

import numpy as np
import torch
from numpy.typing import NDArray

from cache.batches import Rows, permutation, rank_shares
from cache.canonical import canonical
from configs.task_stages import TaskStageConfig
from student_train.feed.examples import ExampleSet
from student_train.feed.hiding import Hiding, hidden_counts
from student_train.feed.packing import lay_out
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.worker_group import WorkerGroup


@dataclass(frozen=True, slots=True, eq=False)
class TaskStep:
    """One optimiser step's work for this process.

    `decisions`, `tokens` and `padded_tokens` (what the model computes, padding included) count the whole step over all
    processes, and `rows` are its examples; `batches` has the same length on each process.
    """

    decisions: int
    tokens: int
    padded_tokens: int
    rows: Rows
    batches: tuple[TaskBatch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TaskFeed:
    """Reads examples for one process of a worker group, in micro-batches of at most `micro_batch_tokens` tokens.

    With `hiding` what is decided is which tokens it has hidden. So many examples as `related` says that follow each
    other in a global batch are never parted: they are what a loss about relations relates, on any number of processes.
    """

    examples: ExampleSet
    group: WorkerGroup
    micro_batch_tokens: int
    hiding: Hiding | None = None
    related: int = 1

    def steps(self, batches: Iterable[Rows], *, measured: bool = False) -> Iterator[TaskStep]:
        """The work of each global batch in turn. When all of them are `measured` together, means are over all."""
        lengths = self.examples.lengths
        decisions = np.diff(self.examples.decision_offsets)
        if self.hiding is not None:
            decisions = hidden_counts(decisions)
        for rows in batches:
            dealt = self._dealt(rows)
            mine = [self._collated(groups) for groups in dealt[self.group.rank]]
            # A process that has fewer runs empty ones, so that all take part in the same collectives.
            mine += [self._collated([rows[:0]])] * (max(map(len, dealt)) - len(mine))
            computed = sum(_padded(lengths[np.concatenate(groups)]) for share in dealt for groups in share)
            decided, read = int(decisions[rows].sum()), int(lengths[rows].sum())
            if measured:
                per_text, per_token = decisions.sum() / len(lengths), decisions.sum() / lengths.sum()
            else:
                per_text, per_token = decided / len(rows), decided / read
            yield TaskStep(
                decisions=decided,
                tokens=read,
                padded_tokens=computed,
                rows=rows,
                batches=tuple(replace(each, per_text=float(per_text), per_token=float(per_token)) for each in mine),
            )

    def _dealt(self, rows: Rows) -> list[list[list[Rows]]]:
        """The micro-batches of each process, each as the groups of examples in it."""
        groups = np.split(rows, range(self.related, len(rows), self.related))
        sizes = np.array([_padded(self.examples.lengths[group]) for group in groups])
        dealt = []
        for share in rank_shares(np.arange(len(groups)), lengths=sizes, world_size=self.group.world_size):
            layouts = lay_out(sizes[share], tokens=self.micro_batch_tokens, packs=False)
            dealt.append([[groups[share[at]] for at in chain.from_iterable(layout)] for layout in layouts])
        return dealt

    def _collated(self, groups: list[Rows]) -> TaskBatch:
        rows = np.concatenate(groups)
        batch = collate_examples(self.examples, rows)
        if self.hiding is not None:
            batch = self.hiding.hide(batch, rows)
        if self.related > 1:
            numbers = torch.arange(len(groups)).repeat_interleave(torch.tensor([*map(len, groups)]))
            batch = replace(batch, groups=numbers)
        return batch


def task_steps(stage: TaskStageConfig, *, examples: ExampleSet) -> int:
    """The number of optimiser steps of a stage; a fraction of an epoch is rounded up to whole batches."""
    if stage.steps is not None:
        return stage.steps
    # Through its decimal digits: 1.1 epochs of 10 batches are 11 steps, although 1.1 * 10 is more than that.
    return math.ceil(Fraction(str(stage.epochs)) * batches_an_epoch(stage, examples=examples))


def task_batches(stage: TaskStageConfig, *, examples: ExampleSet, first: int, steps: int) -> Iterator[Rows]:
    """Global batches number `first` to `steps` - 1 of a stage, counted over its epochs."""
    each = batches_an_epoch(stage, examples=examples)
    endless = chain.from_iterable(_epoch(stage, examples=examples, epoch=epoch) for epoch in count(first // each))
    return islice(endless, first % each, first % each + steps - first)


def batches_an_epoch(stage: TaskStageConfig, *, examples: ExampleSet) -> int:
    """Global batches that hold every example once, or one copy of every text."""
    return math.ceil(len(examples.of_epoch(0)) / stage.batch_size)


def measured_batches(examples: ExampleSet, *, tokens: int, related: int = 1) -> list[Rows]:
    """All examples, those of similar length together, in batches of about `tokens` tokens.

    A batch ends where so many examples as `related` says end, so that the same ones are related whatever its size.
    """
    order = np.argsort(examples.lengths, kind="stable")
    ends = np.cumsum(examples.lengths[order])
    cuts = -(-(np.flatnonzero(np.diff(ends // tokens)) + 1) // related) * related
    return [rows for rows in np.split(order, np.unique(cuts)) if len(rows)]


def _padded(lengths: NDArray[np.int64]) -> int:
    """Tokens that the model computes for texts of these lengths in one micro-batch, padding included."""
    return len(lengths) * max(1, int(lengths.max(initial=0)))


def _epoch(stage: TaskStageConfig, *, examples: ExampleSet, epoch: int) -> list[Rows]:
    """Every example once, or one copy of every text; the last batch may be short."""
    name = canonical("stillroom/task-epoch/1", examples.digest, int(stage.seed), int(epoch))
    read = examples.of_epoch(epoch)
    order = read[permutation(len(read), name=name)]
    return [order[at : at + stage.batch_size] for at in range(0, len(order), stage.batch_size)]
