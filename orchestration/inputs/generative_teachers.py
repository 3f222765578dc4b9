"""A language model that labels the examples of a task: its files, and who it is.

What can be known from the configuration, the task and the model's `config.json` is refused here, before anything is
loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from configs import ConfigError, ModelError
from configs.model_files import read_config
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST
from evaluation.tasks.answer_grammar import answer_grammar
from evaluation.tasks.examples import content_free_examples
from evaluation.tasks.label_names import LabelNames
from evaluation.tasks.parsing import answer_reader
from evaluation.tasks.templates import UnfitRowError, row_template
from orchestration.environment import VLLM, installed_version
from orchestration.inputs.doors import TeacherDoor, knock, other_licence, require_same
from orchestration.inputs.models import open_model
from orchestration.inputs.preflight import require_positions, require_servable
from orchestration.inputs.task_teachers import locate_teacher
from orchestration.inputs.task_texts import decision_labels
from orchestration.inputs.teachers import Teacher, identity_of, identity_without_weights
from teacher_server.heads import head_of

ENCODERS = ("ForMaskedLM", "ForPreTraining", "Model")
"""How the classes of models that write nothing end, those with a task head aside; `GPT2LMHeadModel` is none of them."""

LISTED = 2
"""A template that names so many of the labels is taken to list them; one alone may be any word."""


def door_of_writer(
    config: TaskDistillConfig, *, key: str = FIRST, patience_s: float | None = None
) -> TeacherDoor | None:
    """The door that the language model answers behind; None where an engine of the experiment does.

    `key` is where the model stands in the configuration. Without `patience_s` a door that is away is waited for as long
    as the configuration says.

    Raises:
        ConfigError: there is no token.
        DoorError: the door cannot be reached, lets nobody in, or lacks the teacher.
    """
    served = config.teacher.serve
    return None if served is None else knock(served, key=key, patience_s=patience_s)


def open_generative_teacher(
    config: TaskDistillConfig,
    task: TaskConfig,
    *,
    door: TeacherDoor | None = None,
    key: str = FIRST,
    progress: Callable[[int, int], None] | None = None,
) -> Teacher:
    """Make the teacher's directory if need be, and compute its identity; `progress` is told (bytes hashed, in all).

    `door` is where it answers; of one that was not asked only that is known which the files say. `key` is where it
    stands in the configuration.

    Raises:
        ConfigError: it cannot be asked about this task, its engine takes more than it reads, or its door has another
            one.
        ModelError: it cannot be found, loaded or fingerprinted, or it writes no text.
    """
    require_askable(config, task)
    teacher, directory = config.teacher, locate_teacher(config)
    _require_writer(directory, config)
    files = open_model(directory, label=teacher.model.label, weights=config.needs_teacher_weights)
    if teacher.serve is None:
        require_positions(config, model="the teacher", shape=files.shape, engine="teacher_engine")
    require_servable(files, dtype=teacher.dtype, key=key)
    if files.has_weights:
        here = identity_of(files, config=config, dtype=teacher.dtype, progress=progress)
    else:
        here = identity_without_weights(files, dtype=teacher.dtype)
    if door is None:
        return Teacher(files, here)
    terms = _too_much(config, key=key, door=door)
    return Teacher(files, require_same(key, door, files, here=here, terms=terms), door)


def _too_much(config: TaskDistillConfig, *, key: str, door: TeacherDoor) -> Iterator[str]:
    """Lines for what is wanted of it and its door does not give."""
    teacher, facts, longest = config.teacher, door.facts, config.runtime.teacher_engine.max_model_len
    yield from other_licence(key, teacher.licence, door=door.label, there=facts.licence)
    if teacher.answers == "labels" and not facts.most_k:
        yield (
            f"{key}.answers={teacher.answers} reads log-probabilities, and {door.label} gives none: have "
            "teacher.top_k raised where the door is, or set answers: text"
        )
    if longest > facts.max_model_len:
        yield (
            f"runtime.teacher_engine.max_model_len={longest} is how long a question with its answer may be here, and "
            f"{door.label} takes {facts.max_model_len} tokens: lower it, or have it raised where the door is"
        )


def require_askable(config: TaskDistillConfig, task: TaskConfig) -> None:
    """Refuse a task that a language model cannot be asked about in the way of `teacher.answers`.

    Raises:
        ConfigError: naming the key and the cure.
    """
    teacher, engine = config.teacher, config.runtime.teacher_engine
    decision_labels(task)
    if teacher.answers == "labels" and task.kind != "classification":
        raise ConfigError(
            f"teacher.answers=labels gives the class of a text, and task {task.name} is {task.kind}: set answers: "
            "text, or answers: head and name a model with a head for it"
        )
    question = row_template(task.template, task=task.name, key="template")
    if not set(question.reads) - {"labels"}:
        raise ConfigError(
            f"the template of task {task.name} reads no field of a row, so every question would be the same: put one "
            "into it, {{ text }}"
        )
    if "labels" not in question.reads:
        _require_whole_list(task)
    if teacher.answers == "text":
        answer_reader(task)
        if teacher.constrained:
            answer_grammar(task)
        if task.max_new_tokens >= engine.max_model_len:
            raise ConfigError(
                f"max_new_tokens={task.max_new_tokens} of task {task.name} leaves no room for a question in "
                f"runtime.teacher_engine.max_model_len={engine.max_model_len}: lower the first or raise the second"
            )
    if teacher.calibrated:
        try:
            content_free_examples(task)
        except UnfitRowError as error:
            raise ConfigError(
                f"teacher.calibrated=true needs questions without content, and the template of task {task.name} cannot "
                f"be filled with none ({error}): set calibrated: false"
            ) from error


def generative_provenance(config: TaskDistillConfig, teacher: Teacher) -> dict[str, str]:
    """What every manifest records and no key depends on. What engine answers behind a door, its own manifests say."""
    return {
        "model": teacher.files.label,
        "tokenizer": type(teacher.files.tokenizer).__name__,
        "dataset": str(config.task),
        **({"vllm": installed_version(*VLLM)} if teacher.door is None else teacher.door.provenance()),
        "stillroom": installed_version("stillroom"),
    }


def _require_writer(directory: Path, config: TaskDistillConfig) -> None:
    names = read_config(directory).get("architectures") or ()
    encoder = bool(names) and all(str(name).endswith(ENCODERS) and "LMHead" not in str(name) for name in names)
    head = head_of(directory)
    if head is not None or encoder:
        what = "is an encoder" if head is None else f"has a head for {head}"
        raise ModelError(
            f"{config.teacher.model.label} {what} and writes no text, and teacher.answers={config.teacher.answers}: "
            "set answers: head, or name a language model"
        )


def _require_whole_list(task: TaskConfig) -> None:
    """Refuse a template that lists labels and leaves some out: nobody answers with a word that is not offered."""
    if task.kind != "classification":
        return
    names, words = LabelNames.of(task), task.verbalisers
    named = names.all_in(task.template)
    lacking = next((label for label in words if label not in named), None)
    if len(named) >= LISTED and lacking is not None:
        raise ConfigError(
            f"the template of task {task.name} names {', '.join(label for label in words if label in named)[:80]} and "
            f"not label {lacking} ({words[lacking]!r}): name all of them, or write {{{{ labels | join(', ') }}}}"
        )
