"""A teacher that is tuned on gold labels before it is asked: trained once, an artifact like a student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from configs.task_stages import TransformerStart
from configs.teachers import FIRST
from orchestration.pipeline.tasks.starts import MadeStart, StartsOf, made_start, reader_of
from orchestration.pipeline.tasks.students import TaskTrainer


def prepared_teacher(
    trainer: TaskTrainer, *, starts: StartsOf, name: str = FIRST, begun: MadeStart | None = None
) -> Path | None:
    """The directory of a tuned teacher; None where it is not to be tuned. `starts.teacher_dir` is the model as it is.

    It begins with what general stages have `begun`, if there were any.
    It reads what stands around the examples, as it will when it is asked about them.
    A model without a head gets that of the task; one with another head was refused before.

    Raises:
        DistillError: the model cannot learn this task.
        TrainingError: a worker failed; the checkpoint of the last save remains.
    """
    config = trainer.run.config.teacher
    if not config.prepare:
        return None
    untouched = TransformerStart(kind="transformer", model=config.model)
    start = begun or made_start(untouched, seed=config.prepare[0].seed, of=starts)
    reader = replace(reader_of(start, max_tokens=config.max_tokens), wide=True)
    chain = trainer.addressed(name, stages=config.prepare, start=start, reader=reader)
    learned = chain.links[0].lesson
    trainer.journal.tracker.child(
        f"{name} prepared",
        params={"model": config.model.label},
        tags={"role": "teacher", "student_digest": chain.digest},
        dataset=("train", learned.train_digest),
    )
    trainer.train(replace(chain, name=f"{name} prepared"))
    return chain.directory
