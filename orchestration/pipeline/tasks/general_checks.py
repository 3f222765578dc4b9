"""General stages that cannot work are refused before anything is loaded, by what config.json and tokenizers say.

Networks and tokenizers are imported where there is a general stage: they take seconds to load, and a plan without one
is there at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs import ConfigError
from configs.architecture import read_text_model
from configs.model_files import speech_sha256
from configs.task_experiment import TaskDistillConfig
from configs.task_stages import TaskStageConfig, TaskStudentConfig
from configs.task_starts import TransformerStart
from orchestration.inputs.models import is_at_hand, locate_model
from orchestration.plan.task_features import require_general_matched
from orchestration.plan.task_placement import own_models


def require_general_models(config: TaskDistillConfig, *, teacher_dir: Path) -> None:
    """Refuse general stages whose models have no such head, layers, attention, tokenizer or positions.

    Raises:
        ConfigError: naming the stage, what it needs and what works.
        ModelError: a config.json or a tokenizer that cannot be read, or attention that cannot be looked into.
    """
    stages = [stage for student in config.students.values() for stage in student.general] + [*config.teacher.general]
    if not stages:
        return
    from student_train.models.general_student import has_word_head
    from student_train.models.task_tokenizer import load_task_tokenizer

    label = config.teacher.model.label
    if any(stage.needs == "words" for stage in stages) and load_task_tokenizer(teacher_dir).mask_token_id is None:
        raise ConfigError(
            f"objective=masked_lm hides tokens behind a mask token and the tokenizer of {label} has none: set "
            "objective: features, or name a model like BERT"
        )
    require_general_matched(config, teacher=read_text_model(teacher_dir), models=own_models(config))
    _require_positions(config, teacher_dir, label=label)
    guesses = bool(config.teacher.general) or has_word_head(teacher_dir)
    for name, student in config.students.items():
        if student.general:
            _require_student(config, name, student, teacher_dir=teacher_dir, guesses=guesses)


def _require_student(
    config: TaskDistillConfig, name: str, student: TaskStudentConfig, *, teacher_dir: Path, guesses: bool
) -> None:
    from student_train.models.general_student import has_word_head
    from student_train.models.tracing import require_open_attention

    start, teacher = student.start, config.teacher.model.label
    assert isinstance(start, TransformerStart)
    own = None
    if start.model is not None and is_at_hand(start.model):
        own = locate_model(start.model, models_root=config.runtime.models_root)
        if speech_sha256(own) != speech_sha256(teacher_dir):
            raise ConfigError(
                f"students.{name}.general reads plain text beside the teacher, and {start.model.label} has another "
                "tokenizer than the teacher: start from the teacher, or from a shape"
            )
    begins = start.shape is not None or (guesses if start.model is None else own is None or has_word_head(own))
    for key, stage in _keyed(name, student):
        if stage.needs == "words" and not begins:
            model = teacher if start.model is None else start.model.label
            raise ConfigError(
                f"{key}.objective=masked_lm begins with a head that guesses hidden tokens, {_cure(model)}"
            )
        if stage.soft_weight and not guesses:
            raise ConfigError(
                f"{key}.soft_weight={stage.soft_weight:g} learns what the teacher guesses of hidden tokens, "
                + _cure(teacher)
            )
        if any(term.reads_attention for term in stage.features):
            for directory in (teacher_dir, *(() if own is None else (own,))):
                require_open_attention(directory)


def _cure(label: str) -> str:
    return (
        f"and {label} has none (no class that ends with ForMaskedLM in its config.json): set objective: "
        "features, which needs none, or have teacher.general train one"
    )


def _keyed(name: str, student: TaskStudentConfig) -> Iterator[tuple[str, TaskStageConfig]]:
    return ((f"students.{name}.general.{number}", stage) for number, stage in enumerate(student.general))


def _require_positions(config: TaskDistillConfig, teacher_dir: Path, *, label: str) -> None:
    from student_train.models.task_model import longest_text

    assert config.data.plain is not None
    longest, shapes = config.data.plain.max_tokens, {label: longest_text(teacher_dir)}
    for name, student in config.students.items():
        if student.general and isinstance(student.start, TransformerStart) and student.start.shape is not None:
            shapes[f"students.{name}"] = student.start.shape.max_positions
    for model, positions in shapes.items():
        if longest > positions:
            raise ConfigError(
                f"data.plain.max_tokens={longest} and {model} reads {positions} tokens: lower it to {positions}"
            )
