"""The comparison of a run: the teacher while its engine is up, then every student that was not measured before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache import GenerateRequest
from configs import DistillConfig
from configs.places import absolute_root
from evaluation import HeldOutMetrics
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.scoring import ScoringJob
from orchestration.comparison.bench import (
    Bench,
    evaluate_student,
    evaluate_teacher,
    finished,
    teacher_tokens,
)
from orchestration.comparison.examination import Candidate
from orchestration.comparison.report import Evaluated
from orchestration.fill.budgets import require_budget
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import Teacher, identity_of
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.chain import Student
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import Line, Stage, run_stage
from orchestration.plan.requests import SequenceSet


@dataclass(slots=True)
class TeacherAnswers(Stage[Candidate, Evaluated, Evaluated]):
    """Measures the live teacher against its cached answers, while its engine is up."""

    teacher: Teacher
    bench: Bench
    pool: EnginePool
    settings: RunSettings
    journal: Journal
    compute: Compute

    @property
    def candidate(self) -> Candidate:
        """The teacher as a row of the comparison."""
        files, identity = self.teacher.files, self.teacher.identity
        return Candidate("teacher", "teacher", identity.digest(), files.directory, identity, files.shape.parameters)

    def prepare(self) -> Candidate | None:
        """The teacher, unless it was measured before.

        Raises:
            BudgetReached: that may take more than is left of the experiment's budgets.
        """
        if self._measured():
            return None
        require_budget(
            self.settings.config.budgets,
            spent=self.journal.ledger.counts(),
            tokens=teacher_tokens(self.bench),
            purpose="the teacher's row of the comparison",
        )
        self.compute.need_cluster()
        return self.candidate

    def line(self) -> Line:
        """See `Stage`."""
        return Line("teacher answers")

    def run(self, work: Candidate, progress: StageProgress) -> Evaluated:
        """Let it answer and score."""
        return evaluate_teacher(work, bench=self.bench, pool=self.pool, artifacts=self.settings.artifacts)

    def keep(self, made: Evaluated | None) -> Evaluated:
        """Track its row; the evaluation was kept when it was made."""
        row = made or self._measured()["teacher"]
        self.journal.tracker.child("teacher", params={}, tags={"role": "teacher"})
        self.journal.track("teacher", row.metrics())
        return row

    def summary(self, made: Evaluated | None, kept: Evaluated) -> str:
        """See `Stage`."""
        return f"noise floor {kept.forward_kl:.4f} nats"

    def _measured(self) -> dict[str, Evaluated]:
        return finished([self.candidate], bench=self.bench, artifacts=self.settings.artifacts)


@dataclass(slots=True)
class HeldOutScoring(Stage[list[Candidate], list[HeldOutMetrics], list[HeldOutMetrics]]):
    """Scores models on the teacher's held-out answers. What it gives is kept with the answers of each model."""

    candidates: list[Candidate]
    lesson: Lesson
    settings: RunSettings
    compute: Compute

    def prepare(self) -> list[Candidate] | None:
        """All that it was given."""
        if self.candidates:
            self.compute.need_cluster()
        return self.candidates or None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("held-out scoring", total=len(self.candidates), unit="models")

    def run(self, work: list[Candidate], progress: StageProgress) -> list[HeldOutMetrics]:
        """Score them one after the other, in one process."""
        return self.compute.score([scoring_job(each, lesson=self.lesson, settings=self.settings) for each in work])

    def keep(self, made: list[HeldOutMetrics] | None) -> list[HeldOutMetrics]:
        """Nothing yet, see above."""
        return made or []

    def summary(self, made: list[HeldOutMetrics] | None, kept: list[HeldOutMetrics]) -> str:
        """See `Stage`."""
        return f"{len(kept)} models at {kept[0].tokens:,} tokens of the teacher's answers"


@dataclass(slots=True)
class StudentAnswers(Stage[list[Candidate], dict[str, Evaluated], dict[str, Evaluated]]):
    """Lets models answer the test prompts, and keeps each evaluation with its held-out metrics; gives them by name."""

    metrics: dict[str, HeldOutMetrics]
    candidates: list[Candidate]
    bench: Bench
    settings: RunSettings
    compute: Compute

    def prepare(self) -> list[Candidate] | None:
        """All that it was given."""
        return self.candidates or None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("student answers", total=len(self.candidates), unit="models")

    def run(self, work: list[Candidate], progress: StageProgress) -> dict[str, Evaluated]:
        """Load one after the other into the running engines, or into new ones where they have another shape."""
        made: dict[str, Evaluated] = {}
        for candidate in work:
            progress.update(len(made), note=candidate.name)
            files = open_model(candidate.directory, label=candidate.name)
            made[candidate.name] = evaluate_student(
                candidate,
                self.metrics[candidate.name],
                bench=self.bench,
                pool=self.compute.student_pool(files, candidate.identity),
                artifacts=self.settings.artifacts,
            )
        return made

    def keep(self, made: dict[str, Evaluated] | None) -> dict[str, Evaluated]:
        """What was made; each was kept at once."""
        return made or {}

    def summary(self, made: dict[str, Evaluated] | None, kept: dict[str, Evaluated]) -> str:
        """See `Stage`."""
        return f"{len(kept)} models, {len(self.bench.requests)} prompts each"


def compare_students(
    students: Sequence[Student],
    *,
    settings: RunSettings,
    journal: Journal,
    compute: Compute,
    lesson: Lesson,
    bench: Bench,
) -> tuple[Evaluated, ...]:
    """Measure the untouched and the trained students, in this order; what was measured before is not repeated."""
    wanted = student_candidates(students, config=settings.config)
    results = finished(wanted, bench=bench, artifacts=settings.artifacts)
    left = [candidate for candidate in wanted if candidate.name not in results]
    scored = run_stage(HeldOutScoring(left, lesson, settings, compute), settings=settings, journal=journal)
    metrics = {candidate.name: each for candidate, each in zip(left, scored, strict=True)}
    answers = StudentAnswers(metrics, left, bench, settings, compute)
    answered = run_stage(answers, settings=settings, journal=journal)
    results |= answered
    for candidate in wanted:
        if candidate.role == "untouched":
            journal.tracker.child(candidate.name, params={}, tags={"role": "untouched"})
        journal.track(candidate.name, results[candidate.name].metrics())
    return tuple(results[candidate.name] for candidate in wanted)


def open_bench(config: DistillConfig, *, lesson: Lesson, sets: Sequence[SequenceSet]) -> Bench:
    """The part of the test split that the teacher answered, as every model meets it."""
    sequences = next(part for part in sets if part.name == "teacher-test")
    keys = lesson.cache.lookup(sequences.requests, k=sequences.k)
    # A view holds a prompt that stands twice in the data once.
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key is not None}
    kept = sorted(first.values())
    limit = config.evaluation.max_new_tokens or config.generation.max_new_tokens
    requests = [sequences.requests[i] for i in kept]
    return Bench(
        cache=lesson.cache,
        view=lesson.views["teacher-test"],
        requests=tuple(_limited(r, limit) for r in requests if isinstance(r, GenerateRequest)),
        tokenizer_of=lesson.teacher.files,
        top_k=config.teacher.top_k,
        compared_tokens=min(limit, config.generation.max_new_tokens),
    )


def student_candidates(students: Sequence[Student], *, config: DistillConfig) -> list[Candidate]:
    """The untouched starts, each once in every dtype that it is trained in, and the trained students."""
    found: dict[str, Candidate] = {}
    starts = {(student.start.digest, student.start_dtype): student for student in students}
    for (digest, dtype), student in starts.items():
        name = "untouched" if len(starts) == 1 else f"untouched ({student.name})"
        found[name] = _candidate(config, name, "untouched", digest, student.start.directory, dtype=dtype)
    for student in students:
        found[student.name] = _candidate(
            config, student.name, "student", student.digest, student.directory, dtype=student.dtype
        )
    return list(found.values())


def _candidate(config: DistillConfig, name: str, role: str, digest: str, directory: Path, *, dtype: str) -> Candidate:
    files = open_model(directory, label=name)
    identity = identity_of(files, config=config, dtype=dtype)
    return Candidate(name, role, digest, directory, identity, files.shape.parameters)


def scoring_job(candidate: Candidate, *, lesson: Lesson, settings: RunSettings) -> ScoringJob:
    """What held-out scoring has to know of a model."""
    return ScoringJob(
        model_dir=candidate.directory.resolve(),
        cache_root=absolute_root(settings.config.runtime.cache_root),
        identity=lesson.teacher.identity,
        view=lesson.paths["teacher-test"].resolve(),
        vocab=lesson.teacher.files.vocab,
        dtype=candidate.identity.dtype,
        accelerator=settings.device,
        log_file=settings.logs / "scoring.log",
    )


def _limited(request: GenerateRequest, limit: int) -> GenerateRequest:
    return replace(request, max_new_tokens=limit)
