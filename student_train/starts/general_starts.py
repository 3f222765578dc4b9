"""The untouched encoders of general stages, each made as a directory, without the head of any task.

As for tasks (`student_train.starts.task_starts`): the same settings and the same teacher give the same bytes, and
random weights come from the seed alone. What has the head of a masked language model keeps it.
"""

from __future__ import annotations

from pathlib import Path

from configs.task_starts import TransformerStart
from student_train.files import staged_directory
from student_train.models.general_student import GeneralStudent, load_general_student, random_general_student
from student_train.models.task_model import write_task_student
from student_train.models.task_tokenizer import load_task_tokenizer
from student_train.starts.task_layers import Rows
from student_train.starts.task_starts import cut_in_place, shaped_config


def make_general_start(
    start: TransformerStart,
    *,
    seed: int,
    guesses: bool,
    teacher_dir: Path,
    out: Path,
    model_dir: Path | None = None,
    rows: Rows = (),
) -> Path:
    """Write the start to `out` and return that path; `out` appears whole or not at all.

    `model_dir` holds the model that `start.model` names. A shape gets the head of a masked language model where it
    `guesses`. `rows` are token ids of texts, which measured starts need.

    Raises:
        ConfigError: sizes that the teacher does not have.
        DataError: a measured start without rows.
        ModelError: a model that does not load, or that cannot be cut.
    """
    source = teacher_dir if model_dir is None else model_dir
    student: GeneralStudent
    if start.shape is not None:
        tokenizer = load_task_tokenizer(teacher_dir)
        config = shaped_config(start.shape, tokenizer=tokenizer)
        student = random_general_student(config, tokenizer=tokenizer, seed=seed, guesses=guesses)
    else:
        student = load_general_student(source)
        if start.derived:
            cut_in_place(student, start, source, rows=rows)
    with staged_directory(out) as staging:
        write_task_student(student, dict(student.named_parameters()), start=source, folder=staging)
    return out
