"""A teacher that is tuned on gold labels before it is asked: trained once, an artifact like a student.

The run directory notes which artifact it became (`orchestration.outputs.prepared`), so that whoever serves or audits
the teachers of an experiment finds them without making its data anew: it is named by all that the tuning depends on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from configs import ConfigError
from configs.task_experiment import TaskDistillConfig
from configs.task_starts import TransformerStart
from configs.teachers import FIRST, key_of_teacher
from orchestration.comparison.show import run_directory
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.prepared import note_prepared, noted_prepared
from orchestration.pipeline.tasks.starts import MadeStart, StartsOf, made_start, reader_of
from orchestration.pipeline.tasks.students import TaskTrainer


def prepared_models(config: TaskDistillConfig, *, config_dir: Path) -> dict[str, Path]:
    """The directories of an experiment's tuned teachers by their names, whole and unharmed; `config` as it is written.

    Raises:
        ConfigError: one that is to be tuned is not yet.
    """
    wanted = [name for name, teacher in config.every_teacher.items() if teacher.prepare]
    if not wanted:
        return {}
    directory, artifacts = run_directory(config, config_dir=config_dir), Artifacts(config.runtime.run_root)
    noted, found = noted_prepared(directory), dict[str, Path]()
    for name in wanted:
        digest = noted.get(name)
        if digest is None or artifacts.read_student(digest) is None:
            raise ConfigError(
                f"{key_of_teacher(name)}.prepare tunes the teacher before it is asked, and {directory} has none that "
                "is tuned: distill fill (or run) this configuration first"
            )
        found[name] = artifacts.student_dir(digest)
    return found


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
    note_prepared(trainer.run.directory, name, digest=chain.digest)
    return chain.directory
