"""Students of tasks on disk: whatever kind of network, read and written by one function each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from configs.architecture import read_text_model
from configs.errors import ModelError
from configs.model_files import read_config
from configs.task import TaskKind
from configs.task_features import InsideSizes
from student_train.models.bag import BagStudent
from student_train.models.recurrent import RecurrentStudent
from student_train.models.task_network import (
    NetworkStudent,
    is_network,
    load_network,
    read_network_config,
    write_network,
)
from student_train.models.task_student import ANY_LENGTH, HEAD_KINDS, TaskStudent
from student_train.models.task_transformer import (
    TransformerStudent,
    load_transformer_student,
    stored_head,
    stored_positions,
    write_transformer_student,
)

__all__ = ["TaskStudent", "load_task_student", "longest_text", "stored_inside", "stored_task", "write_task_student"]

NETWORKS: Mapping[str, type[NetworkStudent]] = {"recurrent": RecurrentStudent, "bag": BagStudent}
"""Networks over embeddings by the `kind` in their config.json."""


def load_task_student(
    model_dir: Path,
    *,
    kind: TaskKind,
    labels: Sequence[str],
    dtype: torch.dtype = torch.float32,
    head_seed: int | None = None,
    max_tokens: int | None = None,
) -> TaskStudent:
    """Load a student, on the CPU and in evaluation mode, from safetensors and without remote code.

    Its outputs are brought into the order of `labels`. With `head_seed` a model without a head for `kind` gets one,
    drawn with that seed, and says so by `new_head`. `max_tokens` is the longest row that it will be given.

    Raises:
        ModelError: it does not load, lacks weights, has another head, other labels, or too few positions, or its
            tokenizer cannot put two texts into one row and the task asks for it.
    """
    if kind not in HEAD_KINDS:
        raise ModelError(f"{model_dir}: no task head does {kind}: choose a task of kind {', '.join(HEAD_KINDS)}")
    student: TaskStudent
    if is_network(model_dir):
        student = load_network(model_dir, _network_of(model_dir), kind=kind, labels=labels, dtype=dtype)
    else:
        student = load_transformer_student(model_dir, kind=kind, labels=labels, dtype=dtype, head_seed=head_seed)
    if max_tokens is not None and max_tokens > student.max_tokens:
        raise ModelError(
            f"{model_dir}: reads {student.max_tokens} tokens at most and max_tokens={max_tokens}: lower max_tokens"
        )
    return student


def stored_task(model_dir: Path) -> tuple[TaskKind, tuple[str, ...]]:
    """What a directory says of its head: the kind of task, and the labels in the order of its outputs.

    Raises:
        ModelError: it has no head for a task, or no config.json that can be read.
    """
    if not is_network(model_dir):
        return stored_head(model_dir)
    config = read_config(model_dir)
    kind, labels = config.get("task"), config.get("labels")
    if kind not in HEAD_KINDS or not isinstance(labels, list):
        raise ModelError(f"{model_dir}: its config.json names no task and labels: copy or make it again")
    return kind, tuple(map(str, labels))


def longest_text(model_dir: Path) -> int:
    """The tokens of the longest row that a stored student reads; no weights are read for it.

    Raises:
        ModelError: it has no config.json that can be read.
    """
    return ANY_LENGTH if is_network(model_dir) else stored_positions(model_dir)


def stored_inside(model_dir: Path) -> InsideSizes:
    """The sizes of what is inside a stored student.

    Raises:
        ModelError: its config.json cannot be read.
    """
    if is_network(model_dir):
        return read_network_config(model_dir, _network_of(model_dir)).inside
    return read_text_model(model_dir).inside


def write_task_student(student: TaskStudent, weights: Mapping[str, Tensor], *, start: Path, folder: Path) -> None:
    """Fill `folder` with `weights` under the names of `student.named_parameters()`, config and tokenizer of `start`.

    What is written is read back by `load_task_student`; a model of transformers by plain transformers too, any other by
    the lines of torch in its README. Its labels are those of the student. Adapters have been merged before; tied
    weights are stored once.
    """
    if isinstance(student, NetworkStudent):
        write_network(student, weights, start=start, folder=folder)
        return
    assert isinstance(student, TransformerStudent)
    write_transformer_student(student, weights, start=start, folder=folder)


def _network_of(model_dir: Path) -> type[NetworkStudent]:
    stated = str(read_config(model_dir).get("kind"))
    if stated not in NETWORKS:
        raise ModelError(f"{model_dir}: kind={stated} in its config.json is none of {', '.join(NETWORKS)}: correct it")
    return NETWORKS[stated]
