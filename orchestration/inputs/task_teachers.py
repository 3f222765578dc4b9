"""The teacher of an experiment that distils a task, where it answers by a task head: its files, and who it is.

What its `config.json` says is enough to refuse it: a head for another task, or labels that are not those of the task.
Nothing is loaded for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache import TeacherCache, TeacherIdentity
from cache.fingerprint import fingerprint_model
from configs import ConfigError, ModelError
from configs.architecture import TextModel, read_text_model
from configs.model_files import weight_files
from configs.places import FINGERPRINTS
from configs.task import SHOWN_LABELS, TaskConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST
from evaluation.tasks.label_names import LabelNames
from orchestration.environment import installed_version
from orchestration.inputs.models import is_at_hand, load_tokenizer, locate_model
from orchestration.inputs.task_texts import decision_labels
from teacher_server.heads import head_of, longest_sequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Columns = tuple[int, ...]
"""The column of a head's logits that speaks for each decision of the task, in the task's order."""


@dataclass(frozen=True, slots=True)
class TaskTeacher:
    """A teacher with a task head as a plain directory, and who it is.

    `columns` turn its logits into those of the task: `values[:, columns]`.
    """

    directory: Path
    label: str
    identity: TeacherIdentity
    tokenizer: PreTrainedTokenizerBase
    columns: Columns
    model: TextModel

    def provenance(self, config: TaskDistillConfig) -> dict[str, str]:
        """What every manifest records and no key depends on. What answers behind a door, its own manifests say."""
        door = config.teacher.serve
        return {
            "model": self.label,
            "tokenizer": type(self.tokenizer).__name__,
            "max_tokens": str(config.teacher.max_tokens),
            "dataset": str(config.task),
            **({"transformers": installed_version("transformers")} if door is None else {"served_by": door.host}),
            "stillroom": installed_version("stillroom"),
        }


def locate_teacher(config: TaskDistillConfig, name: str = FIRST) -> Path:
    """Make sure that what is needed of a teacher lies in a plain directory, and return that.

    Raises:
        ModelError: it cannot be found.
    """
    model = config.every_teacher[name].model
    return locate_model(
        model, models_root=config.runtime.models_root, weights=config.of_teacher(name).needs_teacher_weights
    )


def teacher_at_hand(config: TaskDistillConfig, name: str = FIRST) -> bool:
    """Whether `locate_teacher` would find everything on this machine.

    Raises:
        ModelError: it is named by what is not a hub id.
    """
    return is_at_hand(config.every_teacher[name].model, weights=config.of_teacher(name).needs_teacher_weights)


def open_task_teacher(
    config: TaskDistillConfig,
    task: TaskConfig,
    *,
    prepared: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    key: str = FIRST,
) -> TaskTeacher:
    """Make the teacher's directory if need be, and compute its identity; `progress` is told (bytes hashed, in all).

    `key` is where it stands in the configuration.

    `prepared` is the directory that the stages of `teacher.prepare` made; where there are stages and it is not made
    yet, the model may have no head, because it gets that of the task.

    Raises:
        ModelError: it cannot be found or fingerprinted, has no head for the task, or one with other labels.
        ConfigError: the task is not one for heads, or `teacher.max_tokens` is more than it reads.
    """
    teacher, models_root = config.teacher, config.runtime.models_root
    directory = locate_model(teacher.model, models_root=models_root) if prepared is None else prepared
    label = teacher.model.label
    labels = decision_labels(task)
    weight_files(directory)
    model = read_text_model(directory)
    if teacher.prepare and prepared is None:
        columns = tuple(range(len(labels)))
        _require_tunable(directory, task, own=model.labels, label=label)
    else:
        columns = head_columns(directory, task, own=model.labels, label=label)
    tokenizer = load_tokenizer(directory, label=label)
    longest = longest_sequence(model.positions, tokenizer)
    if teacher.max_tokens > longest:
        raise ConfigError(f"{key}.max_tokens={teacher.max_tokens} and {label} reads {longest} tokens: lower it")
    prints = fingerprint_model(directory, memo=models_root / FINGERPRINTS, progress=progress)
    return TaskTeacher(
        directory=directory,
        label=label,
        identity=TeacherIdentity(prints.weights_sha256, prints.config_sha256, dtype=teacher.dtype),
        tokenizer=tokenizer,
        columns=columns,
        model=model,
    )


def open_task_cache(config: TaskDistillConfig, teacher: TaskTeacher) -> TeacherCache:
    """The teacher's part of the cache."""
    return TeacherCache.open(config.runtime.cache_root, teacher.identity, provenance=teacher.provenance(config))


def _require_tunable(directory: Path, task: TaskConfig, *, own: Sequence[str], label: str) -> None:
    """Refuse to tune a model for a task whose head is for another one: which of its weights are the head's is not said.

    Raises:
        ModelError: naming both.
    """
    kind, wanted = head_of(directory), decision_labels(task)
    if kind is None or (kind == task.kind and (kind == "extractive_qa" or sorted(own) == sorted(wanted))):
        return
    has = f"a head for {kind}" if kind != task.kind else f"a head with the labels {_some(own)}"
    raise ModelError(
        f"{label} has {has}, and teacher.prepare tunes one for task {task.name}, {task.kind} with {_some(wanted)}: "
        "name a model without a head, or with this one"
    )


def _some(labels: Sequence[str]) -> str:
    """Labels in a message; tasks have up to hundreds."""
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(labels[:SHOWN_LABELS]) + more


def head_columns(directory: Path, task: TaskConfig, *, own: Sequence[str], label: str) -> Columns:
    """Where the head of a model, whose `own` labels are these, has the decisions of a task.

    Labels of classification are known by themselves or by their words, as answers are; tags are the task's own.

    Raises:
        ModelError: its head is for tasks of another kind, or its labels are not those of the task.
    """
    kind = head_of(directory)
    if kind != task.kind:
        raise ModelError(
            f"{label} has {'no task head' if kind is None else f'a head for {kind}'}, and task {task.name} is "
            f"{task.kind}: name a model with a head for it, or let stages of teacher.prepare train one on gold labels"
        )
    wanted = decision_labels(task)
    if kind == "extractive_qa":
        return tuple(range(len(wanted)))
    named = LabelNames.of(task).named
    known = [named(each) for each in own] if kind == "classification" else list(own)
    if sorted(map(str, known)) != sorted(wanted):
        raise ModelError(
            f"the head of {label} has the labels {', '.join(own)}, and task {task.name} has {', '.join(wanted)}: make "
            "id2label in its config.json say those of the task, or name another model"
        )
    return tuple(known.index(each) for each in wanted)
