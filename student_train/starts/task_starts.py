"""The untouched students of a task, each made as a directory: from a model, from a shape, or from its teacher.

The same settings and the same teacher give the same bytes, so a start can be addressed by `TaskStartSettings.identity`
and what it was made from. Random weights come from the seed alone. Starts are float32, whatever the teacher is stored
in: a stage says what it is trained in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig

from configs.errors import ConfigError, ModelError
from configs.task import TaskKind
from configs.task_starts import BagStart, EncoderShape, RecurrentStart, TaskStart, TransformerStart
from student_train.files import staged_directory
from student_train.models.bag import BagStudent
from student_train.models.recurrent import RecurrentStudent
from student_train.models.task_model import load_task_student, write_task_student
from student_train.models.task_network import FORMAT, NetworkStudent
from student_train.models.task_student import TaskStudent
from student_train.models.task_tokenizer import load_task_tokenizer, require_pairs
from student_train.models.task_transformer import SPANS, TransformerStudent, random_transformer
from student_train.starts.embeddings import narrowed_embeddings, read_embeddings
from student_train.starts.sizes import kept_layers
from student_train.starts.task_layers import Rows, keep_only, layer_influence, separate_layers
from student_train.starts.task_widths import narrow

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TaskStartSettings:
    """What is asked for: the start, the task's kind and labels in their order, and the seed of what is drawn."""

    start: TaskStart
    kind: TaskKind
    labels: Sequence[str]
    seed: int

    @property
    def measured(self) -> bool:
        """Whether rows of token ids are read to choose what stays of the teacher."""
        return isinstance(self.start, TransformerStart) and self.start.measured

    def identity(self) -> dict[str, Any]:
        """What changes the weights, beside the models they are made from and the rows that are measured."""
        # How many rows are measured says nothing where none are.
        ignored = set() if self.measured else {"calibration_rows"}
        return {
            "start": self.start.model_dump(mode="json", exclude=ignored),
            "kind": self.kind,
            "labels": list(self.labels),
            "seed": self.seed,
        }


def make_task_start(
    settings: TaskStartSettings, *, teacher_dir: Path, out: Path, model_dir: Path | None = None, rows: Rows = ()
) -> Path:
    """Write the start to `out` and return that path; `out` appears whole or not at all.

    `model_dir` holds the model that `start.model` names. `rows` are token ids of texts as the teacher reads them, which
    measured starts need.

    Raises:
        ConfigError: sizes that the teacher does not have, or a network that cannot do such a task.
        DataError: a measured start without rows.
        ModelError: a model that does not load, that has another head, or that cannot be cut.
    """
    start = settings.start
    source = teacher_dir
    student: TaskStudent
    if isinstance(start, TransformerStart):
        if start.shape is not None:
            student = _of_shape(start, teacher_dir, settings)
        else:
            source = teacher_dir if model_dir is None else model_dir
            student = _with_head(source, settings)
            if start.derived:
                cut_in_place(student, start, source, rows=rows)
    else:
        student = _network(start, teacher_dir, settings)
    with staged_directory(out) as staging:
        write_task_student(student, dict(student.named_parameters()), start=source, folder=staging)
        if isinstance(student, NetworkStudent) and not (staging / TOKENIZER).exists():
            # Its README reads this file, and older models have their vocabulary in others.
            load_task_tokenizer(source).backend_tokenizer.save(str(staging / TOKENIZER))
    return out


def cut_in_place(student: TaskStudent, start: TransformerStart, source: Path, *, rows: Rows) -> None:
    """Take out of a student what the start does not keep; `source` is where it comes from, `rows` what is measured.

    Raises:
        ConfigError: more than the student has.
        DataError: a measured start without rows.
        ModelError: the student cannot be cut.
    """
    if not isinstance(student, TransformerStudent):
        raise ModelError(f"{source}: is no transformer, so nothing of it can be kept: name a model, or a shape")
    total = len(separate_layers(student))
    influence = layer_influence(student, rows) if start.layers_by == "block_influence" else None
    keep_only(student, kept_layers(start.keep_layers, total=total, by=start.layers_by, influence=influence))
    if start.narrows:
        narrow(student, start, rows=rows)


def shaped_config(shape: EncoderShape, *, tokenizer: Any) -> BertConfig:
    """A BERT of these sizes that reads what a tokenizer makes."""
    return BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=shape.mlp,
        max_position_embeddings=shape.max_positions,
    )


def _with_head(model_dir: Path, settings: TaskStartSettings) -> TaskStudent:
    """A model with the head of the task, an own one if it has it."""
    return load_task_student(model_dir, kind=settings.kind, labels=settings.labels, head_seed=settings.seed)


def _of_shape(start: TransformerStart, teacher_dir: Path, settings: TaskStartSettings) -> TaskStudent:
    """A BERT of random weights that reads what the teacher's tokenizer makes."""
    shape, tokenizer = start.shape, load_task_tokenizer(teacher_dir)
    assert shape is not None
    if settings.kind == "extractive_qa":
        require_pairs(tokenizer, teacher_dir)
    return random_transformer(
        shaped_config(shape, tokenizer=tokenizer),
        kind=settings.kind,
        labels=settings.labels,
        tokenizer=tokenizer,
        seed=settings.seed,
    )


def _network(start: RecurrentStart | BagStart, teacher_dir: Path, settings: TaskStartSettings) -> NetworkStudent:
    """A network whose embeddings are the teacher's, or as random as all else."""
    tokenizer = load_task_tokenizer(teacher_dir)
    if settings.kind == "extractive_qa":
        require_pairs(tokenizer, teacher_dir)
    if start.kind == "bag" and settings.kind != "classification":
        raise ConfigError(f"start.kind=bag but the task is of kind {settings.kind}: choose recurrent or transformer")
    taken = None
    if start.embeddings == "teacher":
        taken = narrowed_embeddings(read_embeddings(teacher_dir), size=start.embedding_size)
        if len(taken) < len(tokenizer):
            raise ModelError(
                f"{teacher_dir}: has {len(taken)} embeddings for the {len(tokenizer)} tokens of its tokenizer: set "
                "embeddings: random"
            )
    sizes: dict[str, Any] = start.model_dump(exclude={"embeddings", "embedding_size"}) | {
        "format": FORMAT,
        "task": settings.kind,
        "labels": SPANS if settings.kind == "extractive_qa" else tuple(settings.labels),
        "vocab": len(tokenizer) if taken is None else len(taken),
        "embedding_size": start.embedding_size if taken is None else taken.shape[1],
    }
    if start.kind == "bag":
        # What the tokenizer adds to texts, and what it pads with.
        sizes["left_out"] = sorted({tokenizer.pad_token_id, *tokenizer("").input_ids, *tokenizer("", "").input_ids})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        student = RecurrentStudent.of(sizes) if start.kind == "recurrent" else BagStudent.of(sizes)
    if taken is not None:
        with torch.no_grad():
            student.embedding.weight.copy_(taken)
    return student
