"""The comparison of a run: the teacher while its engine is up, then every student that was not measured before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache import GenerateRequest
from configs.places import absolute_root
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.scoring import ScoringJob, score_students
from orchestration.comparison.bench import (
    Candidate,
    TestBench,
    evaluate_student,
    evaluate_teacher,
    finished,
    teacher_tokens,
)
from orchestration.comparison.report import Evaluated
from orchestration.fill.budgets import require_budget
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import Teacher, identity_of
from orchestration.pipeline.chain import Student
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Run
from orchestration.plan.requests import SequenceSet

SCORING_CPUS = 2


def teacher_stage(run: Run, *, teacher: Teacher, bench: TestBench, pool: EnginePool) -> Evaluated:
    """Measure the live teacher against its cached answers, while its engine is up."""
    candidate = Candidate(
        "teacher", "teacher", teacher.identity.digest(), teacher.files.directory, teacher.identity,
        teacher.files.shape.parameters,
    )  # fmt: skip
    results = finished([candidate], bench=bench, artifacts=run.artifacts)
    if "teacher" not in results:
        require_budget(
            run.config.budgets,
            spent=run.ledger.counts(),
            tokens=teacher_tokens(bench),
            purpose="the teacher's row of the comparison",
        )
        run.need_cluster()
        with run.console.stage("teacher answers") as stage:
            results["teacher"] = evaluate_teacher(candidate, bench=bench, pool=pool, artifacts=run.artifacts)
            stage.summary = f"noise floor {results['teacher'].forward_kl:.4f} nats"
    run.tracker.child("teacher", params={}, tags={"role": "teacher"})
    run.tracker.log_final("teacher", results["teacher"].metrics())
    run.tracker.finish("teacher")
    return results["teacher"]


def evaluate_stage(run: Run, students: Sequence[Student], *, lesson: Lesson, bench: TestBench) -> tuple[Evaluated, ...]:
    """Measure the untouched and the trained students, in this order; what was measured before is not repeated."""
    wanted = student_candidates(run, students)
    results = finished(wanted, bench=bench, artifacts=run.artifacts)
    open_ones = [candidate for candidate in wanted if candidate.name not in results]
    if open_ones:
        run.need_cluster()
        with run.console.stage("held-out scoring", total=len(open_ones), unit="models") as stage:
            jobs = [_scoring_job(run, candidate, lesson=lesson) for candidate in open_ones]
            metrics = score_students(jobs, cpus=SCORING_CPUS)
            stage.summary = f"{len(jobs)} models at {metrics[0].tokens:,} tokens of the teacher's answers"
        with run.console.stage("student answers", total=len(open_ones), unit="models") as stage:
            for done, (candidate, measured) in enumerate(zip(open_ones, metrics, strict=True)):
                stage.update(done, note=candidate.name)
                pool = _pool_for(run, candidate)
                results[candidate.name] = evaluate_student(
                    candidate, measured, bench=bench, pool=pool, artifacts=run.artifacts
                )
            stage.summary = f"{len(open_ones)} models, {len(bench.requests)} prompts each"
    for candidate in wanted:
        if candidate.role == "untouched":
            run.tracker.child(candidate.name, params={}, tags={"role": "untouched"})
        run.tracker.log_final(candidate.name, results[candidate.name].metrics())
        run.tracker.finish(candidate.name)
    return tuple(results[candidate.name] for candidate in wanted)


def _pool_for(run: Run, candidate: Candidate) -> EnginePool:
    """The running engines if they serve this shape in this dtype, else new ones in their place."""
    files = open_model(candidate.directory, label=candidate.name)
    served = files.shape, candidate.identity.dtype
    if run.student_pool is None or run.student_pool[0] != served:
        if run.student_pool is not None:
            run.student_pool[1].release()
        pool = run.pool(files, candidate.identity, settings=run.config.runtime.student_engine, k=0)
        run.student_pool = (served, pool)
    return run.student_pool[1]


def test_bench(run: Run, *, lesson: Lesson, sets: Sequence[SequenceSet]) -> TestBench:
    """The part of the test split that the teacher answered, as every model meets it."""
    sequences = next(part for part in sets if part.name == "teacher-test")
    keys = lesson.cache.lookup(sequences.requests, k=sequences.k)
    # A view holds a prompt that stands twice in the data once.
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key is not None}
    kept = sorted(first.values())
    limit = run.config.evaluation.max_new_tokens or run.config.generation.max_new_tokens
    requests = [sequences.requests[i] for i in kept]
    return TestBench(
        cache=lesson.cache,
        view=lesson.views["teacher-test"],
        requests=tuple(_limited(r, limit) for r in requests if isinstance(r, GenerateRequest)),
        tokenizer_of=lesson.teacher.files,
        top_k=run.config.teacher.top_k,
        compared_tokens=min(limit, run.config.generation.max_new_tokens),
    )


def student_candidates(run: Run, students: Sequence[Student]) -> list[Candidate]:
    """The untouched starts, each once in every dtype that it is trained in, and the trained students."""
    found: dict[str, Candidate] = {}
    starts = {(student.start.digest, student.start_dtype): student for student in students}
    for (digest, dtype), student in starts.items():
        name = "untouched" if len(starts) == 1 else f"untouched ({student.name})"
        found[name] = _candidate(run, name, "untouched", digest, student.start.directory, dtype=dtype)
    for student in students:
        found[student.name] = _candidate(
            run, student.name, "student", student.digest, student.directory, dtype=student.dtype
        )
    return list(found.values())


def _candidate(run: Run, name: str, role: str, digest: str, directory: Path, *, dtype: str) -> Candidate:
    files = open_model(directory, label=name)
    identity = identity_of(files, config=run.config, dtype=dtype)
    return Candidate(name, role, digest, directory, identity, files.shape.parameters)


def _scoring_job(run: Run, candidate: Candidate, *, lesson: Lesson) -> ScoringJob:
    return ScoringJob(
        model_dir=candidate.directory.resolve(),
        cache_root=absolute_root(run.config.runtime.cache_root),
        identity=lesson.teacher.identity,
        view=lesson.paths["teacher-test"].resolve(),
        vocab=lesson.teacher.files.vocab,
        dtype=candidate.identity.dtype,
        accelerator=run.device,
        log_file=run.logs / "scoring.log",
    )


def _limited(request: GenerateRequest, limit: int) -> GenerateRequest:
    return replace(request, max_new_tokens=limit)
