"""From a cache view to the micro-batches of this process, one optimiser step at a time.

Everything here is a pure function of the view and the settings: which rows make up a step, which process takes which
of them, how they fall into micro-batches and how many response tokens the whole step has. So the processes agree
without communicating, and a resumed run sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice, tee

import numpy as np

from cache.batches import Rows, global_batches, rank_shares
from cache.protocols import RecordReader
from cache.records import TeacherRecord
from cache.views import CacheView
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch, collate
from student_train.feed.packing import Layout, lay_out, padded_tokens
from student_train.feed.retokenised import Retokenised
from student_train.feed.turns import Turns
from student_train.losses.advantages import PolicyTerms
from student_train.losses.aligned import Aligned
from student_train.worker_group import WorkerGroup

STEPS_AHEAD = 2
"""Number of steps whose rows are read while earlier ones are trained on."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One optimiser step's work for this process.

    `response_tokens`, `tokens` and `padded_tokens` (what the model computes, padding included) count the whole step
    over all processes; `batches` has the same length on each. `keys` names the step's records, in hex. `rows` are the
    rows of the view in each of this process's batches, in the order of their positions there. `metrics` (by their
    tracking names) became known with this step and are reported with it. `plain` are micro-batches of plain text to be
    learned beside all this, again as many on each process, with `plain_tokens` predicted tokens over all processes;
    nothing else counts them.
    """

    response_tokens: int
    tokens: int
    padded_tokens: int
    keys: tuple[str, ...]
    batches: tuple[MicroBatch, ...]
    rows: tuple[Rows, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    plain: tuple[MicroBatch, ...] = ()
    plain_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Feed:
    """Reads a view for one process of a worker group. `packs` says that the model keeps packed sequences apart.

    `terms` are what is known about the tokens of each row of the view, where the student sampled them. `texts` is what
    a student of another tokenizer reads, whose `sizes` the view is then.
    """

    cache: RecordReader
    view: CacheView
    group: WorkerGroup
    micro_batch_tokens: int
    with_targets: bool
    packs: bool = False
    terms: Sequence[PolicyTerms] | None = None
    texts: Retokenised | None = None

    def steps(self, batches: Sequence[Rows]) -> Iterator[StepBatch]:
        """The work of each global batch in turn, read from the cache as it is asked for."""
        # Each step is dealt out once, when its rows are about to be read.
        dealt, ahead = tee(self._shares(rows) for rows in batches)
        stored = self.view if self.texts is None else self.texts.view
        blocks = self.cache.iter_blocks(stored, (shares[self.group.rank] for shares in ahead), prefetch=STEPS_AHEAD)
        for rows, shares, records in zip(batches, dealt, blocks, strict=True):
            share = shares[self.group.rank]
            inputs = [self._input_tokens(each) for each in shares]
            layouts = [self._lay_out(lengths) for lengths in inputs]
            terms = None if self.terms is None else [self.terms[row] for row in share]
            mine = layouts[self.group.rank]
            made = [self._collate(share, records, layout=layout, terms=terms) for layout in mine]
            # A process that has fewer runs empty ones, so that all take part in the same collectives.
            empty = max(len(layout) for layout in layouts) - len(made)
            nothing: list[PolicyTerms] | None = None if terms is None else []
            made += [self._collate(share[:0], [], layout=(), terms=nothing)] * empty
            lengths = np.asarray(self.view.lengths)[rows]
            answers = int((lengths - np.asarray(self.view.prompt_len)[rows]).sum())
            yield StepBatch(
                response_tokens=answers,
                tokens=int(lengths.sum()),
                padded_tokens=sum(padded_tokens(*pair) for pair in zip(layouts, inputs, strict=True)),
                keys=tuple(key.tobytes().hex() for key in self.view.keys[rows]),
                batches=tuple(replace(micro, per_text=answers / len(rows)) for micro in made),
                rows=tuple(share[[at for row in layout for at in row]] for layout in mine) + (share[:0],) * empty,
            )

    def _collate(
        self,
        rows: Rows,
        records: Sequence[TeacherRecord],
        *,
        layout: Layout,
        terms: Sequence[PolicyTerms] | None,
    ) -> MicroBatch:
        if self.texts is None:
            return collate(records, with_targets=self.with_targets, layout=layout, terms=terms)
        made = collate(self.texts.records(rows, records), with_targets=False, layout=layout)
        if not self.with_targets:
            return made
        order = [at for row in layout for at in row]
        return replace(made, aligned=Aligned.joined(self.texts.aligned(rows[order], [records[at] for at in order])))

    def _shares(self, rows: Rows) -> tuple[Rows, ...]:
        return rank_shares(rows, world_size=self.group.world_size, lengths=np.asarray(self.view.lengths))

    def _input_tokens(self, share: Rows) -> Rows:
        """Tokens of each row that the model reads: all but the last."""
        return np.asarray(self.view.lengths)[share].astype(np.int64) - 1

    def _lay_out(self, lengths: Rows) -> tuple[Layout, ...]:
        return lay_out(lengths, tokens=self.micro_batch_tokens, packs=self.packs)


def joined(parts: Sequence[StepBatch], *, metrics: Mapping[str, float]) -> StepBatch:
    """Several steps' work as that of one step."""
    return StepBatch(
        response_tokens=sum(part.response_tokens for part in parts),
        tokens=sum(part.tokens for part in parts),
        padded_tokens=sum(part.padded_tokens for part in parts),
        keys=tuple(key for part in parts for key in part.keys),
        batches=tuple(batch for part in parts for batch in part.batches),
        rows=tuple(rows for part in parts for rows in part.rows),
        metrics=metrics,
    )


def total_steps(stage: StageConfig, *, view: CacheView, turns: Turns | None = None) -> int:
    """The number of optimiser steps of a stage; a fraction of an epoch is rounded up to whole batches.

    `turns` say which rows of the view an epoch reads; all of them without.
    """
    if stage.rollout is not None:
        return stage.rollout.steps
    if stage.steps is not None:
        return stage.steps
    assert stage.epochs is not None
    whole = int(stage.epochs)
    steps = sum(len(_epoch(stage, view=view, epoch=epoch, turns=turns)) for epoch in range(whole))
    rest = stage.epochs - whole
    return steps + (math.ceil(rest * len(_epoch(stage, view=view, epoch=whole, turns=turns))) if rest else 0)


def training_batches(
    stage: StageConfig, *, view: CacheView, first: int, steps: int, turns: Turns | None = None
) -> list[Rows]:
    """Global batches number `first` to `steps` - 1 of a stage, counted over its epochs."""
    endless = chain.from_iterable(_epoch(stage, view=view, epoch=epoch, turns=turns) for epoch in count())
    return list(islice(endless, first, steps))


def held_out_batches(view: CacheView, *, tokens: int) -> list[Rows]:
    """All rows of a view in order, cut into batches of about `tokens` tokens."""
    ends = np.cumsum(np.asarray(view.lengths), dtype=np.int64)
    return [rows for rows in np.split(np.arange(len(view)), np.flatnonzero(np.diff(ends // tokens)) + 1) if len(rows)]


def _epoch(stage: StageConfig, *, view: CacheView, epoch: int, turns: Turns | None) -> tuple[Rows, ...]:
    rows = None if turns is None else turns.of(epoch)
    return global_batches(view, seed=stage.seed, epoch=epoch, tokens_per_batch=stage.tokens_per_step, rows=rows)
