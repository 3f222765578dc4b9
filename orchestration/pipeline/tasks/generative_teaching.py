"""Asking a language model about all examples of an experiment: engines of vLLM under Ray, or whoever serves it.

It answers dev and test too: no model with a head could be opened that does it later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache import TeacherCache
from cache.erasures import Erasures
from configs.places import absolute_root
from configs.teachers import FIRST, key_of_teacher
from evaluation.cost import Saved
from evaluation.results import DevScores, FinalScores
from evaluation.tasks.examples import Example
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.planned_engine import engine_spec
from orchestration.comparison.label_likelihood import LABEL_LOGPROBS
from orchestration.comparison.rows import bytes_on_disk
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.refusals import engine_version, open_refusals
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.generative_teachers import door_of_writer, generative_provenance, open_generative_teacher
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.task_examples import Beliefs, Said
from orchestration.inputs.task_texts import read_with
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.console import Console
from orchestration.pipeline import fill_stage
from orchestration.pipeline.run import Journal
from orchestration.pipeline.tasks.comparison import GivenAnswers
from orchestration.pipeline.tasks.generative_plan import (
    ENCODING,
    asked_examples,
    plan_questions,
    require_fitting_context,
    show_questions,
    task_questions,
)
from orchestration.pipeline.tasks.generative_teacher import GenerativeTeacher
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.teaching import HashingProgress, TeacherName, Wanted
from orchestration.pipeline.workers import Workers
from orchestration.plan.memory import DTYPE_BYTES
from orchestration.plan.savings import saved_by_cache
from student_train.starts.task_layers import Rows

Pool = Callable[[Teacher], EnginePool]


@dataclass(frozen=True, slots=True)
class GenerativeTeaching:
    """See `Teaching`. `engines` makes those of a teacher, not started; Ray's unless a test has others."""

    run: TaskRun
    journal: Journal
    workers: Workers
    engines: Pool | None = None

    def require(self, task: LoadedTask, *, progress: HashingProgress) -> str:
        """See `Teaching`."""
        config, key = self.run.config, key_of_teacher(self.run.asks)
        teacher = open_generative_teacher(
            config, task.config, door=door_of_writer(config, key=key), key=key, progress=progress
        )
        questions = task_questions(config, task, teacher.files)
        questions.require_taken(task.train[0])
        questions.require_distinct_labels(task.train[0])
        return f"{teacher.label}, identity {teacher.identity.digest()[:12]}"

    def forgotten(self, task: LoadedTask, examples: Sequence[Example], erasures: Erasures) -> list[bool]:
        """See `Teaching`."""
        teacher = open_generative_teacher(self.run.config, task.config)
        questions = task_questions(self.run.config, task, teacher.files).of(examples)
        return [erasures.hold(each.prompt_ids, prompt_len=len(each.prompt_ids)) for each in questions]

    def plan(self, task: LoadedTask, sets: TaskSets, *, prepared: Path | None, tests: bool = False) -> AskedInWords:
        """See `Teaching`."""
        assert prepared is None, "the configuration refuses stages of preparation for a language model"
        config, key = self.run.config, key_of_teacher(self.run.asks)
        teacher = open_generative_teacher(config, task.config, door=door_of_writer(config, key=key), key=key)
        cache = TeacherCache.open(
            config.runtime.cache_root, teacher.identity, provenance=generative_provenance(config, teacher)
        )
        questions = task_questions(config, task, teacher.files)
        refusals = open_refusals(config.runtime, teacher.identity, k=questions.k, door=teacher.door)
        examples = asked_examples(config, task, sets)
        lost = require_fitting_context(questions, examples)
        if lost:
            self.journal.console.warn(lost)
        plan = plan_questions(questions, examples, cache=cache, refused=refusals)
        pool = self._door_pool(teacher) if teacher.door is not None else (self.engines or self._pool)(teacher)
        asked = fill_stage.AskedTeacher(teacher, cache, pool, plan)
        return AskedInWords(asked, GenerativeTeacher(questions, cache), examples, self.run, self.journal, self.workers)

    def _door_pool(self, teacher: Teacher) -> DoorPool:
        assert teacher.door is not None
        ledger = self.journal.ledger.directory.absolute()
        return DoorPool(teacher.door, teacher.identity, vocab=teacher.files.vocab, ledger=ledger)

    def _pool(self, teacher: Teacher) -> EnginePool:
        config = self.run.config
        spec = engine_spec(
            teacher.files,
            teacher.by_weights,
            settings=config.runtime.teacher_engine,
            k=LABEL_LOGPROBS,
            accelerator=self.run.device,
            log_dir=self.run.logs,
        )
        costs, ledger = self.journal.console.costs, self.journal.ledger
        return EnginePool(
            replace(spec, ledger=ledger.directory.absolute(), teaches=True, grammars=config.teacher.answers == "text"),
            clock=ledger,
            room=self.workers.room,
            joules=lambda: costs.meter.read().joules,
        )


@dataclass(frozen=True, slots=True)
class AskedInWords:
    """See `AskedTaskTeacher`: a language model, what it is to be asked about which examples, and its engines."""

    asked: fill_stage.AskedTeacher
    teacher: GenerativeTeacher
    examples: Mapping[str, Sequence[Example]]
    run: TaskRun
    journal: Journal
    workers: Workers

    @property
    def name(self) -> TeacherName:
        """See `AskedTaskTeacher`."""
        files = self.asked.teacher.files
        return TeacherName(files.directory, files.label, self.asked.teacher.by_weights)

    @property
    def names(self) -> dict[str, TeacherName]:
        """See `AskedTaskTeacher`."""
        return {FIRST: self.name}

    @property
    def wanted(self) -> Wanted:
        """See `AskedTaskTeacher`."""
        plan = self.asked.plan
        return Wanted(sum(len(part.requests) for part in self.asked.sets), plan.misses, plan.stored_bytes)

    def show(self, console: Console) -> None:
        """See `AskedTaskTeacher`."""
        show_questions(
            self.asked.plan,
            config=self.run.config,
            files=self.asked.teacher.files,
            device=self.run.device,
            console=console,
        )

    def saved(self) -> Saved:
        """See `AskedTaskTeacher`."""
        return saved_by_cache(self.asked.plan, cache=self.asked.cache)

    def ask(self) -> None:
        """See `AskedTaskTeacher`."""
        config, ledger, door = self.run.config, self.journal.ledger, self.asked.teacher.door
        order = FillOrder(
            scoring=False,
            cache_root=absolute_root(config.runtime.cache_root),
            k=self.teacher.questions.k,
            commit_every_s=config.runtime.commit_every_s,
            licence=config.teacher.licence_as_used,
            provenance=generative_provenance(config, self.asked.teacher),
            ledger=ledger.directory.absolute(),
            encoding=ENCODING,
            # Behind a door nobody's GPUs are counted here.
            gpus=config.runtime.teacher_engine.ranks if door is None else 0.0,
            engine=engine_version(config.runtime, k=self.teacher.questions.k, door=door),
        )
        fill_stage.run_fill(self.asked, order=order, run=self.run, journal=self.journal, workers=self.workers)
        self.asked.pool.release()

    def pin(self, folder: Path) -> dict[str, str]:
        """See `AskedTaskTeacher`."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        cache = self.asked.cache
        for part in self.asked.sets:
            keys = [key for key in cache.lookup(part.requests, k=part.k) if key is not None]
            if keys:
                view = cache.view(keys, dataset=part.split, k=part.k)
                view.save(folder / f"{part.split}.npz")
                found[part.split] = view.digest
        return found

    def rows(self) -> Rows:
        """See `AskedTaskTeacher`."""
        examples = [one for part in self.examples.values() for one in part]
        read = read_with(
            self.asked.teacher.files.tokenizer,
            examples,
            task=self.teacher.questions.task.config,
            max_tokens=self.run.config.teacher.max_tokens,
        )
        return [np.array(one.token_ids, dtype=np.int64) for one in read]

    def about(self, examples: Sequence[Example]) -> list[Beliefs | None] | list[Said | None]:
        """See `TeacherBeliefs`."""
        return self.teacher.about(examples)

    @property
    def inside(self) -> None:
        """See `AskedTaskTeacher`: engines of vLLM show nothing of it."""

    @property
    def taught(self) -> None:
        """See `AskedTaskTeacher`."""

    def given(self) -> dict[str, GivenAnswers]:
        """See `AskedTaskTeacher`."""
        teacher, questions, files = self.teacher, self.teacher.questions, self.asked.teacher.files
        task, door = questions.task, self.asked.teacher.door
        where = "in an engine of vLLM" if door is None else f"by {door.label}"
        name, by = task.config.name, questions.answered_by
        answers = GivenAnswers(
            dev=DevScores(name, by, teacher.answered(task.dev)),
            test=FinalScores(name, by, teacher.answered(task.test)),
            parameters=files.shape.parameters,
            disk_bytes=_bytes_of(files, dtype=self.asked.teacher.by_weights.dtype),
            digest=self.asked.teacher.identity.digest(),
            note=f"answered by {by}, {where}; how fast it is at one text is not measured",
        )
        return {FIRST: answers}

    def notes(self) -> tuple[str, ...]:
        """See `AskedTaskTeacher`."""
        found = []
        for name, examples in self.examples.items():
            silent, unread = self.teacher.unanswered(examples), self.teacher.unread(examples)
            if silent:
                found.append(f"{name}: the teacher did not answer {silent:,} of {len(examples):,} questions")
            if unread:
                found.append(f"{name}: {unread:,} of {len(examples):,} answers of the teacher could not be read")
        return tuple(found)


def _bytes_of(files: ModelFiles, *, dtype: str) -> int:
    """What a model takes on disk; of one whose weights lie behind a door, what these take as they are served."""
    if files.has_weights:
        return bytes_on_disk(files.directory)
    return int(files.shape.parameters * DTYPE_BYTES[dtype])
