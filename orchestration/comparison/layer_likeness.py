"""How alike students and teacher are inside, on the test texts of a task: CKA of every layer with every layer.

The cache keeps states of texts that are learned from, and these are texts that nobody learns from: both models read
them here. What is found is kept under the digests of both models and of the task, so nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs import DistillError
from evaluation.analysis.cka import LEAST_TEXTS, cka_table
from evaluation.results import LayerLikeness
from orchestration.comparison.predicted_answers import input_of
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.fields import to_fields
from student_train.models.layer_states import layer_states

MEASURES = 1
"""Raised by hand when a release measures the same models differently."""

MOST_TEXTS = 1000
"""As many test texts at most, evenly spread over the split: a matrix of 8 MB a layer."""

Reads = Callable[[Path, Sequence[Sequence[str]]], Sequence[NDArray[np.float32]]]
"""States [N, H] of inputs in every layer of the model of a directory."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A model: its name in the comparison, where it lies, and the digest of that."""

    name: str
    directory: Path
    digest: str


@dataclass(frozen=True, slots=True)
class KeptLikeness:
    """What is kept of a student and a teacher."""

    texts: int
    cka: tuple[tuple[float, ...], ...]
    digest: str


def likenesses(
    students: Sequence[Stored],
    *,
    teacher: Stored,
    task: LoadedTask,
    artifacts: Artifacts,
    reads: Reads = layer_states,
) -> tuple[dict[str, LayerLikeness], dict[str, str]]:
    """How alike each student and the teacher are, and a line for each that could not be measured; by name.

    The teacher reads the texts once, and only where something is not kept.
    """
    texts = _texts(task)
    found: dict[str, LayerLikeness] = {}
    failures: dict[str, str] = {}
    if len(texts) < LEAST_TEXTS:
        few = f"the test split has {len(texts)} texts and CKA needs {LEAST_TEXTS}: give the task more test rows"
        return {}, {student.name: few for student in students}
    theirs: Sequence[NDArray[np.float32]] | None = None
    for student in students:
        at = _address(student, teacher=teacher, task=task)
        kept = artifacts.read_evaluation(at, KeptLikeness)
        if kept is None:
            try:
                theirs = theirs or reads(teacher.directory, texts)
                table = cka_table(theirs, reads(student.directory, texts))
            except DistillError as error:
                failures[student.name] = str(error)
                continue
            kept = KeptLikeness(len(texts), table, at)
            artifacts.write_evaluation(at, to_fields(kept))
        found[student.name] = LayerLikeness(teacher.name, kept.texts, kept.cka)
    return found, failures


def _texts(task: LoadedTask) -> list[Sequence[str]]:
    chosen = np.linspace(0, len(task.test) - 1, num=min(len(task.test), MOST_TEXTS)).round().astype(int)
    return [input_of(task.test[at], task.config.kind) for at in chosen]


def _address(student: Stored, *, teacher: Stored, task: LoadedTask) -> str:
    return digest_of(
        layers_of=student.digest, beside=teacher.digest, task=task.facts.digest, texts=MOST_TEXTS, measures=MEASURES
    )
