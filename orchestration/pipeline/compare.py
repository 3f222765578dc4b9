"""The comparison of a run: each teacher while its engine is up, then every student, each in every way that is due.

What is found is kept by each examination. A model that cannot be loaded, or an examination that fails, is named and
costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cache import CacheView, GenerateRequest
from cache.combined import CombinedCache
from configs import BudgetReached, DistillConfig, DistillError
from configs.places import absolute_root
from configs.teachers import FIRST
from evaluation.results import Closeness, ModelResults
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.scoring import ScoringJob
from orchestration.comparison.bench import Bench
from orchestration.comparison.examination import Candidate, Examination, Finding, examine
from orchestration.comparison.exposure_examination import ExposureBias
from orchestration.comparison.held_out import HeldOut
from orchestration.comparison.numbers import closeness_numbers, metrics_of
from orchestration.comparison.rows import evidence_of, row_of
from orchestration.comparison.speed_examination import SpeedExamination
from orchestration.comparison.task_examination import on_test
from orchestration.comparison.task_questions import Asking
from orchestration.comparison.written_answers import Answering
from orchestration.fill.budgets import require_budget
from orchestration.inputs.models import open_model
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.candidates import student_candidates, teacher_candidate
from orchestration.pipeline.chain import Student
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.exposure_stage import ExposureScoring
from orchestration.pipeline.fill_stage import AskedTeacher
from orchestration.pipeline.lessons import TEST_VIEW, Lesson
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import Line, Stage, run_stage

Failures = dict[str, list[str]]
"""By the name of a model: a line for whatever could not be measured."""


@dataclass(slots=True)
class Compared:
    """The rows of a comparison as they come, and where what they rest on is kept. `failures` are of no row's model."""

    artifacts: Artifacts
    rows: list[ModelResults] = field(default_factory=list)
    evidence: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, candidate: Candidate, ways: Sequence[Finding], *, failures: Sequence[str]) -> ModelResults:
        """Put together the row of a model that was examined in these ways."""
        self.rows.append(row_of(candidate, ways, failures=failures))
        self.evidence |= evidence_of(candidate, ways, artifacts=self.artifacts)
        return self.rows[-1]


def ways_of(
    settings: RunSettings, *, bench: Bench, tasks: Sequence[LoadedTask] = ()
) -> tuple[HeldOut | Examination, ...]:
    """How every model of this experiment is examined, in this order."""
    artifacts, asking = settings.artifacts, Asking.of(settings.config)
    asked = [on_test(task, asking, artifacts=artifacts, teacher=bench.tokenizer_of) for task in tasks]
    # Of a teacher whose beliefs are not kept there is nothing to score against.
    held_out = [HeldOut(bench, artifacts)] if bench.view.k else []
    return *held_out, Answering(bench, artifacts), *asked


def speed_of(settings: RunSettings, journal: Journal, *, bench: Bench) -> SpeedExamination:
    """How fast every model of this experiment is served, on the prompts of the bench."""
    runtime, costs = settings.config.runtime, journal.console.costs
    return SpeedExamination(
        prompts=tuple(request.prompt_ids for request in bench.requests),
        folder=settings.artifacts.root / "serving",
        settings=lambda model: runtime.teacher_engine if model.role == "teacher" else runtime.student_engine,
        accelerator=settings.device,
        joules=lambda: costs.meter.read().joules,
    )


@dataclass(slots=True)
class TeacherAnswers(Stage[list[Examination], list[str], list[str]]):
    """Examines a live teacher while its engine is up; gives a line for whatever failed."""

    candidate: Candidate
    ways: Sequence[Examination]
    pool: EnginePool | DoorPool
    settings: RunSettings
    journal: Journal
    compute: Compute

    def prepare(self) -> list[Examination] | None:
        """What was not made of this teacher before.

        Raises:
            BudgetReached: that may take more than is left of the experiment's budgets.
        """
        due = [way for way in self.ways if way.due(self.candidate)]
        if not due:
            return None
        require_budget(
            self.settings.config.budgets,
            spent=self.journal.ledger.counts(),
            tokens=sum(way.teacher_tokens() for way in due),
            purpose=f"the row {self.candidate.name} of the comparison",
        )
        if not isinstance(self.pool, DoorPool):
            self.compute.need_cluster()
        return due

    def line(self) -> Line:
        """See `Stage`."""
        return Line(f"{self.candidate.name} answers", place="teacher")

    def run(self, work: list[Examination], progress: StageProgress) -> list[str]:
        """Let it answer and score."""
        return examine(self.candidate, work, self.pool)

    def keep(self, made: list[str] | None) -> list[str]:
        """What failed; what was found is kept by each examination."""
        return made or []

    def summary(self, made: list[str] | None, kept: list[str]) -> str:
        """See `Stage`."""
        floor = closeness_numbers(row_of(self.candidate, self.ways, failures=kept)).get("forward_kl")
        if floor is None:
            return f"{len(kept)} failed" if kept else "in words alone"
        # Of several teachers it is one alone, against what students learned from.
        what = f"{self.candidate.name} alone" if self.settings.config.teachers else "noise floor"
        return f"{what} {floor:.4f} nats"


@dataclass(slots=True)
class HeldOutScoring(Stage[list[Candidate], Failures, Failures]):
    """Scores models on the teacher's held-out answers, without a teacher."""

    candidates: list[Candidate]
    held_out: HeldOut
    lesson: Lesson
    settings: RunSettings
    compute: Compute

    def prepare(self) -> list[Candidate] | None:
        """Those that were not scored before."""
        missing = [candidate for candidate in self.candidates if self.held_out.missing(candidate)]
        if missing:
            self.compute.need_cluster()
        return missing or None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("held-out scoring", unit="models", place="workers")

    def run(self, work: list[Candidate], progress: StageProgress) -> Failures:
        """Score them one after the other, in one process, and keep what it finds."""
        jobs = [scoring_job(each, lesson=self.lesson, settings=self.settings) for each in work]
        found: list[Closeness | DistillError]
        try:
            found = self.compute.score(jobs)
        except DistillError as error:  # the process died, and none of them is known to be well
            found = [error] * len(jobs)
        failures: Failures = {}
        for candidate, each in zip(work, found, strict=True):
            if isinstance(each, DistillError):
                failures[candidate.name] = [f"{self.held_out.title}: {each}"]
            else:
                self.held_out.keep(candidate, each)
        return failures

    def keep(self, made: Failures | None) -> Failures:
        """What failed."""
        return made or {}

    def summary(self, made: Failures | None, kept: Failures) -> str:
        """See `Stage`."""
        tokens = sum(record.response_len for record in self.held_out.bench.references())
        return f"{len(self.candidates) - len(kept)} models at {tokens:,} tokens of the teacher's answers"


@dataclass(slots=True)
class StudentAnswers(Stage[list[Candidate], Failures, Failures]):
    """Serves models one after the other, and examines each in every way that is due."""

    candidates: list[Candidate]
    ways: Sequence[Examination]
    compute: Compute

    def prepare(self) -> list[Candidate] | None:
        """Those of which an examination is due."""
        left = [each for each in self.candidates if any(way.due(each) for way in self.ways)]
        if left:
            self.compute.need_cluster()
        return left or None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("student answers", total=len(self.candidates), unit="models", place="student")

    def run(self, work: list[Candidate], progress: StageProgress) -> Failures:
        """Load one after the other into the running engines, or into new ones where they have another shape."""
        failures: Failures = {}
        for number, candidate in enumerate(work):
            progress.update(number, note=candidate.name)
            try:
                files = open_model(candidate.directory, label=candidate.name)
                pool = self.compute.student_pool(files, candidate.by_weights)
                pool.load(candidate.directory, candidate.by_weights)
            except BudgetReached:
                raise
            except DistillError as error:
                failures[candidate.name] = [f"cannot be served: {error}"]
                continue
            failed = examine(candidate, [way for way in self.ways if way.due(candidate)], pool)
            if failed:
                failures[candidate.name] = failed
        return failures

    def keep(self, made: Failures | None) -> Failures:
        """What failed."""
        return made or {}

    def summary(self, made: Failures | None, kept: Failures) -> str:
        """See `Stage`."""
        ways = ", ".join(way.title for way in self.ways if not isinstance(way, HeldOut))
        return f"{len(self.candidates)} models: {ways}" + (f"; {len(kept)} with failures" if kept else "")


def compare_teacher(
    asked: AskedTeacher,
    *,
    ways: Sequence[Examination],
    compared: Compared,
    settings: RunSettings,
    journal: Journal,
    compute: Compute,
    name: str = FIRST,
) -> None:
    """Examine the teacher of this name, and add and track its row."""
    if asked.teacher.door is not None:
        # Nobody knows what else an engine behind a door does meanwhile, nor where it is.
        ways = [way for way in ways if not isinstance(way, SpeedExamination)]
    candidate = teacher_candidate(asked.teacher, name=name)
    stage = TeacherAnswers(candidate, ways, asked.pool, settings, journal, compute)
    failures = run_stage(stage, settings=settings, journal=journal)
    row = compared.add(candidate, ways, failures=failures)
    journal.tracker.child(name, params={}, tags={"role": "teacher"})
    journal.track(name, metrics_of(row))


def compare_students(
    students: Sequence[Student],
    *,
    ways: Sequence[Examination | ExposureBias],
    compared: Compared,
    settings: RunSettings,
    journal: Journal,
    compute: Compute,
    lesson: Lesson,
) -> None:
    """Examine the untouched and the trained students, in this order, and add their rows; nothing is measured twice."""
    wanted, unreadable = student_candidates(students, config=settings.config)
    compared.failures += unreadable
    failures: Failures = {candidate.name: [] for candidate in wanted}
    # What another vocabulary makes of the teacher's tokens cannot be told.
    comparable = [candidate for candidate in wanted if candidate.tokens is None]
    served = [way for way in ways if not isinstance(way, ExposureBias)]
    stages: list[Stage[Any, Failures, Failures]] = [
        *(HeldOutScoring(comparable, way, lesson, settings, compute) for way in ways if isinstance(way, HeldOut)),
        StudentAnswers(wanted, served, compute),
        *(
            ExposureScoring(comparable, way, lesson.teacher, settings, journal, compute)
            for way in ways
            if isinstance(way, ExposureBias)
        ),
    ]
    for stage in stages:
        for name, lines in run_stage(stage, settings=settings, journal=journal).items():
            failures[name] += lines
    for candidate in wanted:
        row = compared.add(candidate, ways, failures=failures[candidate.name])
        if candidate.role == "untouched":
            journal.tracker.child(candidate.name, params={}, tags={"role": "untouched"})
        journal.track(candidate.name, metrics_of(row))


def open_bench(config: DistillConfig, *, lesson: Lesson) -> Bench:
    """The part of the test split that the teacher answered, as every model meets it."""
    limit = config.evaluation.max_new_tokens or config.generation.max_new_tokens
    asked = tuple(_limited(r, limit) for r in lesson.tests if isinstance(r, GenerateRequest))
    view = lesson.views[TEST_VIEW]
    return Bench(
        reader=lesson.reader,
        view=view,
        told=lesson.told.get(TEST_VIEW, view),
        words=_who_wrote(lesson).digest,
        requests=tuple(replace(each, prompt_ids=lesson.shown.get(each.prompt_ids, each.prompt_ids)) for each in asked),
        asked=asked,
        tokenizer_of=lesson.teacher.files,
        top_k=config.teacher.top_k,
        compared_tokens=min(limit, config.generation.max_new_tokens),
    )


def scoring_job(candidate: Candidate, *, lesson: Lesson, settings: RunSettings) -> ScoringJob:
    """What held-out scoring has to know of a model."""
    return ScoringJob(
        model_dir=candidate.directory.resolve(),
        cache_root=absolute_root(settings.config.runtime.cache_root),
        identity=lesson.teacher.identity,
        view=lesson.paths[TEST_VIEW].resolve(),
        vocab=lesson.teacher.files.vocab,
        dtype=candidate.identity.dtype,
        accelerator=settings.device,
        log_file=settings.logs / "scoring.log",
    )


def _who_wrote(lesson: Lesson) -> CacheView:
    """The test view; of a mixture that of the teacher whose answers all of them believe something of."""
    view = lesson.views[TEST_VIEW]
    combined = lesson.reader.views.get(view.digest) if isinstance(lesson.reader, CombinedCache) else None
    if combined is None:
        return view
    first = combined.parts[0].view
    return first if len(first) == len(view) else view


def _limited(request: GenerateRequest, limit: int) -> GenerateRequest:
    return replace(request, max_new_tokens=limit)
