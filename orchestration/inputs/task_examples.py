"""What a task student learns from: examples as it reads them, with what its teacher believes about their units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from configs.task import TaskKind
from configs.task_features import StateName
from evaluation.tasks.examples import Example
from orchestration.inputs.task_texts import ReadExample, UnitName
from student_train.feed.examples import UNKNOWN, ExampleSet

CERTAIN = 30.0
"""Nats between the logit of what was said and those of all others: a probability of 1 in float32."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a teacher said of one example, as `Example.gold` has it, where it gives no beliefs."""

    answer: tuple[str, ...]

    def of(self, example: Example) -> Example:
        """The example with that as its gold answer."""
        return replace(example, gold=self.answer, labelled=True)


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs:
    """The teacher's logits about one example: a row [C] a unit, by the names of the units that it sees."""

    units: tuple[UnitName, ...]
    logits: Float32[np.ndarray, "U C"]

    @classmethod
    def of(cls, read: ReadExample, values: Float32[np.ndarray, "P C"]) -> Beliefs:
        """From a signal's values, one row a token or one for the whole text."""
        rows = values if len(values) == 1 else values[list(read.unit_tokens)]
        return cls(read.units, rows)

    @classmethod
    def certain(cls, read: ReadExample, *, kind: TaskKind, labels: int) -> Beliefs | None:
        """Of one who is certain of what is gold in an example as it was read; None where that is not known."""
        if UNKNOWN in read.gold:
            return None
        logits = np.zeros((len(read.units), labels), dtype=np.float32)
        if kind == "extractive_qa":
            logits[list(read.gold), np.arange(labels)] = CERTAIN
        else:
            logits[np.arange(len(read.units)), list(read.gold)] = CERTAIN
        return cls(read.units, logits)


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Hidden states of a teacher about E examples, by their `names`: `values` [E, S, H]."""

    names: tuple[StateName, ...]
    values: Float32[np.ndarray, "E S H"]

    @classmethod
    def of(cls, names: tuple[StateName, ...], each: Sequence[Float32[np.ndarray, "S H"] | None]) -> States:
        """From those of one example after another, of which none lacks any."""
        return cls(names, np.stack([states for states in each if states is not None]))


@dataclass(frozen=True, slots=True)
class MadeExamples:
    """Examples for a student. `unseen` of the units that it reads are left out: the teacher does not see them."""

    examples: ExampleSet
    unseen: int


def make_examples(
    kind: TaskKind,
    labels: tuple[str, ...],
    read: Sequence[ReadExample],
    beliefs: Sequence[Beliefs] | None = None,
    *,
    states: States | None = None,
) -> MadeExamples:
    """The examples of a student in their order; with `beliefs` and `states` of the teacher, one for each of them.

    A unit is learned where both see it. Where the answer of a span lies outside of that its ends are not known.
    """
    parts = [_shared(kind, one, None if beliefs is None else beliefs[at]) for at, one in enumerate(read)]
    logits = [part.logits for part in parts if part.logits is not None]
    made = ExampleSet(
        kind=kind,
        labels=labels,
        token_ids=np.array([token for one in read for token in one.token_ids], dtype=np.int32),
        token_offsets=_offsets([len(one.token_ids) for one in read]),
        split=np.array([one.split for one in read], dtype=np.int32),
        unit_offsets=_offsets([len(part.unit_tokens) for part in parts]),
        unit_tokens=np.array([token for part in parts for token in part.unit_tokens], dtype=np.int32),
        gold=np.array([label for part in parts for label in part.gold], dtype=np.int32),
        teacher=np.concatenate([np.empty((0, len(labels)), np.float32), *logits]) if beliefs is not None else None,
        states=None if states is None else states.values,
        state_names=() if states is None else states.names,
    )
    return MadeExamples(made, unseen=sum(len(one.units) for one in read) - len(made.unit_tokens))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    unit_tokens: tuple[int, ...]
    gold: tuple[int, ...]
    logits: NDArray[np.float32] | None


def _shared(kind: TaskKind, read: ReadExample, beliefs: Beliefs | None) -> _Part:
    """What of an example both student and teacher see."""
    if beliefs is None:
        return _Part(read.unit_tokens, read.gold, None)
    rows = {name: row for row, name in enumerate(beliefs.units)}
    places = [place for place, name in enumerate(read.units) if name in rows]
    gold: tuple[int, ...]
    if kind == "extractive_qa":
        # The ends are places among the units, which moved up.
        moved = {old: new for new, old in enumerate(places)}
        ends = [moved.get(place, UNKNOWN) for place in read.gold]
        gold = (UNKNOWN, UNKNOWN) if UNKNOWN in ends else tuple(ends)
    else:
        gold = tuple(read.gold[place] for place in places)
    return _Part(
        unit_tokens=tuple(read.unit_tokens[place] for place in places),
        gold=gold,
        logits=beliefs.logits[[rows[read.units[place]] for place in places]],
    )


def _offsets(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
