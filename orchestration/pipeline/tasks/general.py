"""General stages of an experiment: encoders that learn plain text before any task, from their teacher as it is untuned.

What they make is a student like any other, addressed by everything that went in, which is nothing of the task: another
experiment with the same general stages over the same texts takes it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.architecture import read_text_model
from configs.schema import PlainConfig
from configs.task import TaskConfig
from configs.task_stages import TaskStageConfig, TaskStudentConfig
from configs.task_starts import TransformerStart
from configs.teachers import FIRST
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.general_texts import PlainTexts, vocabulary, window_tokens
from orchestration.inputs.models import locate_model
from orchestration.lineage.records import MADE_OF
from orchestration.outputs.artifacts import digest_of
from orchestration.pipeline.run import Journal
from orchestration.pipeline.tasks.chain import TaskChain
from orchestration.pipeline.tasks.general_lessons import GeneralLessons
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.starts import MadeStart, StartsOf, content_of_model, in_words, reader_of, rows_sha256
from orchestration.pipeline.tasks.students import TaskTrainer
from orchestration.pipeline.tasks.training import TaskWords
from orchestration.pipeline.workers import Workers
from student_train.job import TaughtInside
from student_train.models.task_tokenizer import load_task_tokenizer
from student_train.starts.general_starts import make_general_start

MOST_MEASURED = 4096
"""Texts whose windows may be measured for starts; how many are is the start's to say."""


@dataclass(frozen=True, slots=True)
class GeneralTexts:
    """What general stages may learn from: plain text, and the sets of a task."""

    plain: PlainTexts
    sets: TaskSets
    task: TaskConfig


@dataclass(frozen=True, slots=True)
class GeneralStages:
    """Addresses and trains them; `starts.teacher_dir` is the teacher before it is tuned. Each chain is trained once."""

    trainer: TaskTrainer
    starts: StartsOf
    plain: PlainConfig
    _chains: dict[str, TaskChain] = field(default_factory=dict)

    def start_of(self, name: str, student: TaskStudentConfig) -> MadeStart:
        """Where the stages of a task begin, once `train` was called: what the general ones of a student make.

        Raises:
            DistillError: they cannot begin.
        """
        assert isinstance(student.start, TransformerStart)
        begun = general_start(student.start, stages=student.general, of=self.starts)
        return self._after(name, student.general, begun)

    def of_teacher(self, stages: tuple[TaskStageConfig, ...], *, label: str) -> MadeStart:
        """The teacher itself after general stages of its own, which are trained at once.

        Raises:
            DistillError: they cannot begin.
            TrainingError: a worker failed; the checkpoint of the last save remains.
        """
        of = self.starts
        digest = digest_of(general_teacher=content_of_model(of.teacher_dir, models_root=of.models_root))
        made = self._after(FIRST, stages, MadeStart(digest, of.teacher_dir, label))
        self.train()
        return made

    def train(self) -> None:
        """Train what does not exist yet.

        Raises:
            TrainingError: a worker failed; the checkpoint of the last save remains.
        """
        for chain in self._chains.values():
            learned = chain.links[0].lesson
            for note in learned.notes:
                self.trainer.journal.console.say(f"{chain.name}: {note}")
            self.trainer.journal.tracker.child(
                chain.name,
                params={"start": chain.start.origin},
                tags={"role": "general", "method": chain.method, "student_digest": chain.digest},
                dataset=(" and ".join(chain.links[0].stage.data), learned.train_digest),
            )
            self.trainer.train(chain)

    def _after(self, name: str, stages: tuple[TaskStageConfig, ...], begun: MadeStart) -> MadeStart:
        reader = reader_of(begun, max_tokens=self.plain.max_tokens)
        chain = self.trainer.addressed(f"{name} general", stages=stages, start=begun, reader=reader)
        # Students that differ in their tasks' stages alone share one.
        chain = self._chains.setdefault(chain.digest, chain)
        origin = f"{begun.origin}; then {', '.join(stage.objective for stage in stages)} on plain text"
        return MadeStart(chain.digest, chain.directory, origin, like=begun.described, begins_with=begun.begins_with)


def general_stages(
    texts: GeneralTexts, *, base: Path, run: TaskRun, journal: Journal, workers: Workers
) -> GeneralStages:
    """The general stages of an experiment, nothing made yet; `base` is the teacher before it is tuned."""
    config, models_root = run.config, run.config.runtime.models_root
    assert config.data.plain is not None
    tokenizer = load_task_tokenizer(base)
    words = TaskWords(
        kind="tagging",
        labels=vocabulary(tokenizer),
        teacher=config.teacher.model.label,
        licence=config.teacher.licence_as_used,
        taught=untuned_teacher(base, dtype=config.teacher.dtype, models_root=models_root),
        general=True,
    )
    lessons = GeneralLessons(texts.plain, texts.sets, texts.task, run.directory / "lessons")
    rows: tuple[NDArray[np.int32], ...] = ()
    begun = [student.start for student in config.students.values() if student.general]
    if any(isinstance(start, TransformerStart) and start.measured for start in begun):
        rows = tuple(ids for ids, _ in window_tokens(
            tokenizer, texts.plain.train[:MOST_MEASURED], max_tokens=config.data.plain.max_tokens
        ))  # fmt: skip
    starts = StartsOf(base, words.kind, words.labels, models_root, run.artifacts, rows)
    return GeneralStages(TaskTrainer(run, journal, workers, lessons, words), starts, config.data.plain)


def general_start(start: TransformerStart, *, stages: tuple[TaskStageConfig, ...], of: StartsOf) -> MadeStart:
    """Make an untouched encoder unless it is there; `of.rows` are token ids of texts, for what is measured.

    Raises:
        ConfigError: sizes that the teacher does not have.
        ModelError: a model that does not load, or that cannot be cut.
    """
    seed, guesses = stages[0].seed, any(stage.needs == "words" for stage in stages)
    model_dir = None if start.model is None else locate_model(start.model, models_root=of.models_root)
    rows = of.rows[: start.calibration_rows] if start.measured else ()
    ignored = set() if start.measured else {"calibration_rows"}
    made_of: dict[str, object] = {
        "general_start": start.model_dump(mode="json", exclude={"model", *ignored}),
        "seed": seed,
        "guesses": guesses,
        "teacher": content_of_model(of.teacher_dir, models_root=of.models_root),
        "model": None if model_dir is None else content_of_model(model_dir, models_root=of.models_root),
        "rows": rows_sha256(rows),
    }
    digest = digest_of(**made_of)
    directory = of.artifacts.init_dir(digest)
    with of.artifacts.claim(digest, what=f"the untouched encoder {directory}"):
        if not of.artifacts.has_start(digest):
            make_general_start(
                start,
                seed=seed,
                guesses=guesses,
                teacher_dir=of.teacher_dir,
                out=directory,
                model_dir=model_dir,
                rows=rows,
            )
            of.artifacts.keep_start(digest, {MADE_OF: made_of})
    return MadeStart(digest, directory, in_words(start), begins_with=start.model)


def untuned_teacher(directory: Path, *, dtype: str, models_root: Path) -> TaughtInside:
    """The teacher of general stages: the model of a directory, before it is tuned for a task."""
    return TaughtInside(
        directory=directory.resolve(),
        identity=digest_of(untuned=content_of_model(directory, models_root=models_root), dtype=dtype),
        dtype=dtype,
        sizes=read_text_model(directory).inside,
    )
