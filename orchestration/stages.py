"""The stages of a run, each from what the one before left.

Every stage asks first what is there already: the cache for the teacher's answers, the artifacts for students and
evaluations. Ray and the engines start when something is missing, and not before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache import CacheView, GenerateRequest, TeacherCache
from configs import CacheError
from orchestration.context import Run, Teacher, identity_of
from orchestration.curves import CURVES, read_curve
from orchestration.evaluate import Candidate, TestBench, evaluate_student, evaluate_teacher, finished, in_order
from orchestration.fill import Budgets, FillResult, fill
from orchestration.fill_shift import FillOrder
from orchestration.models import open_model
from orchestration.plan import FillPlan, SequenceSet
from orchestration.prompts import PromptSet, Rejected
from orchestration.ray_pool import EnginePool
from orchestration.ray_scoring import ScoringJob, score_students
from orchestration.ray_train import train_in_gang
from orchestration.report import Evaluated
from orchestration.students import Link, Start, Student, chain, parameters_of, prepare_start, train_link
from orchestration.tracking import Point, flatten
from student_train.feed import total_steps
from student_train.job import StepMetrics, TrainJob

CHECK_PROMPTS = 2
SCORING_CPUS = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Views:
    """The pinned views of a run by name ("teacher-train"), and the files they are kept in."""

    views: Mapping[str, CacheView]
    paths: Mapping[str, Path]


def fill_stage(run: Run, plan: FillPlan, *, teacher: Teacher, cache: TeacherCache, pool: EnginePool) -> FillResult:
    """Ask the teacher for what is missing; starts no engine when nothing is."""
    config = run.config
    if plan.asks_teacher:
        run.need_cluster()
        with run.console.stage("teacher engine") as stage:
            stage.update(0, note="importing vLLM, loading weights, comparing with transformers")
            pool.check(_some_prompts(plan), stop_ids=teacher.files.stop_ids, bos_id=teacher.files.leading_bos)
            stage.summary = f"{config.runtime.teacher_engine.count} up, agree with a plain forward pass"
    with run.console.stage("fill", total=plan.misses, unit="rows") as stage:
        result = fill(
            plan,
            cache=cache,
            engines=pool,
            order=FillOrder(
                scoring=False,
                cache_root=config.runtime.cache_root.resolve(),
                k=config.teacher.top_k,
                commit_every_s=config.runtime.commit_every_s,
                licence=config.teacher.licence,
                provenance=teacher.provenance(config),
            ),
            budgets=Budgets(config.budgets.max_teacher_tokens, _seconds_budget(run)),
            vocab=teacher.files.vocab,
            progress=stage,
        )
        stage.summary = (
            f"{result.rows:,} new rows, {result.response_tokens:,} response tokens"
            if plan.misses
            else ("nothing to ask: every row is in the cache")
        )
    run.tokens.fill = result.teacher_tokens
    return result


def pin_views(run: Run, sets: Sequence[SequenceSet], *, cache: TeacherCache, failed: int) -> Views:
    """Pin what the students read, and write it into the run directory.

    Raises:
        CacheError: a set has no row at all.
    """
    views, paths = {}, {}
    for sequences in sets:
        keys = [key for key in cache.lookup(sequences.requests, k=sequences.k) if key is not None]
        if not keys:
            raise CacheError(f"the teacher answered none of the {len(sequences.requests)} rows of {sequences.name}")
        view = cache.view(keys, dataset=sequences.name, k=sequences.k)
        views[sequences.name] = view
        paths[sequences.name] = run.directory / "views" / f"{sequences.name}.npz"
        paths[sequences.name].parent.mkdir(parents=True, exist_ok=True)
        view.save(paths[sequences.name])
    if failed:
        run.console.warn(f"{failed} requests could not be answered; see rejected.jsonl")
    return Views(views, paths)


def start_stage(run: Run, *, teacher: Teacher) -> dict[str, Start]:
    """Make the untouched students. Before the teacher is asked, so that one that cannot work costs nothing."""
    with run.console.stage("students") as stage:
        starts = {
            name: prepare_start(
                wanted.init,
                teacher=teacher.files,
                teacher_weights=teacher.identity.weights_sha256,
                artifacts=run.artifacts,
                models_root=run.config.runtime.models_root,
            )
            for name, wanted in run.config.students.items()
        }
        stage.summary = ", ".join(
            f"{name} {parameters_of(start.directory) / 1e6:,.1f} M parameters" for name, start in starts.items()
        )
    return starts


def train_stage(run: Run, starts: Mapping[str, Start], *, teacher: Teacher, views: Views) -> list[Student]:
    """Train every student whose artifact does not exist yet."""
    students = []
    for name, start in starts.items():
        student = chain(
            name, config=run.config, start=start, views=views.views, vocab=teacher.files.vocab, artifacts=run.artifacts
        )
        _track_student(run, student, views=views)
        for link in student.links:
            _train(run, student, link, teacher=teacher, views=views)
        students.append(student)
    return students


def evaluate_stage(
    run: Run,
    students: Sequence[Student],
    *,
    teacher: Teacher,
    cache: TeacherCache,
    views: Views,
    results: dict[str, Evaluated],
    bench: TestBench,
) -> tuple[Evaluated, ...]:
    """Measure every student that was not measured before; models of one shape share one engine."""
    wanted = student_candidates(run, students)
    results |= finished(wanted, bench=bench, artifacts=run.artifacts)
    open_ones = [candidate for candidate in wanted if candidate.name not in results]
    if open_ones:
        run.need_cluster()
        with run.console.stage("held-out scoring", total=len(open_ones), unit="models"):
            jobs = [_scoring_job(run, candidate, teacher=teacher, views=views) for candidate in open_ones]
            metrics = dict(zip(open_ones, score_students(jobs, cpus=SCORING_CPUS), strict=True))
        with run.console.stage("student answers", total=len(open_ones), unit="models") as stage:
            pool: EnginePool | None = None
            shape = None
            for done, candidate in enumerate(open_ones):
                stage.update(done, note=candidate.name)
                files = open_model(candidate.directory, label=candidate.name)
                if pool is None or files.shape != shape:
                    if pool is not None:
                        pool.release()
                    shape = files.shape
                    pool = run.pool(files, candidate.identity, settings=run.config.runtime.student_engine, k=0)
                results[candidate.name] = evaluate_student(
                    candidate, metrics[candidate], bench=bench, pool=pool, artifacts=run.artifacts
                )
            if pool is not None:
                pool.release()
    for candidate in wanted:
        if candidate.role == "untouched":
            run.tracker.child(candidate.name, params={}, tags={"role": "untouched"})
        run.tracker.log_final(candidate.name, results[candidate.name].metrics())
        run.tracker.finish(candidate.name)
    return (results["teacher"], *in_order(wanted, results))


def teacher_stage(run: Run, *, teacher: Teacher, bench: TestBench, pool: EnginePool) -> Evaluated:
    """Measure the live teacher against its cached answers, while its engine is up."""
    candidate = Candidate(
        "teacher", "teacher", teacher.identity.digest(), teacher.files.directory, teacher.identity,
        parameters_of(teacher.files.directory),
    )  # fmt: skip
    results = finished([candidate], bench=bench, artifacts=run.artifacts)
    if "teacher" not in results:
        run.need_cluster()
        with run.console.stage("teacher answers") as stage:
            results["teacher"], run.tokens.evaluation = evaluate_teacher(
                candidate, bench=bench, pool=pool, artifacts=run.artifacts
            )
            stage.summary = f"noise floor {results['teacher'].forward_kl:.4f} nats"
    run.tracker.child("teacher", params={}, tags={"role": "teacher"})
    run.tracker.log_final("teacher", results["teacher"].metrics())
    run.tracker.finish("teacher")
    return results["teacher"]


def test_bench(
    run: Run, *, teacher: Teacher, cache: TeacherCache, views: Views, sets: Sequence[SequenceSet]
) -> tuple[TestBench, list[int]]:
    """The test split as every model meets it, and the positions of its requests that the teacher answered."""
    sequences = next(part for part in sets if part.name == "teacher-test")
    keys = cache.lookup(sequences.requests, k=sequences.k)
    kept = [i for i, key in enumerate(keys) if key is not None]
    limit = run.config.evaluation.max_new_tokens or run.config.generation.max_new_tokens
    requests = [sequences.requests[i] for i in kept]
    bench = TestBench(
        cache=cache,
        view=views.views["teacher-test"],
        requests=tuple(_limited(r, limit) for r in requests if isinstance(r, GenerateRequest)),
        tokenizer_of=teacher.files,
        top_k=run.config.teacher.top_k,
    )
    return bench, kept


def student_candidates(run: Run, students: Sequence[Student]) -> list[Candidate]:
    """The untouched starts, each once, and the trained students."""
    found: dict[str, Candidate] = {}
    starts = {student.start.digest: student for student in students}
    for digest, student in starts.items():
        name = "untouched" if len(starts) == 1 else f"untouched ({student.name})"
        found[name] = _candidate(run, name, "untouched", digest, student.start.directory)
    for student in students:
        found[student.name] = _candidate(run, student.name, "student", student.digest, student.directory)
    return list(found.values())


def _candidate(run: Run, name: str, role: str, digest: str, directory: Path) -> Candidate:
    files = open_model(directory, label=name)
    return Candidate(name, role, digest, directory, identity_of(files, config=run.config), parameters_of(directory))


def _train(run: Run, student: Student, link: Link, *, teacher: Teacher, views: Views) -> None:
    steps = total_steps(link.stage, view=views.views[link.train_view])
    title = f"train {student.name}" + (f" {link.stage.objective}" if len(student.links) > 1 else "")
    with run.console.stage(title, total=steps, unit="steps") as stage:
        stage.update(0, note="starting the workers")

        def on_step(metrics: StepMetrics) -> None:
            losses = {name: value for name, value in metrics.values.items() if name.endswith("/loss")}
            note = ", ".join(f"{name.removesuffix('/loss')} loss {value:.3f}" for name, value in losses.items())
            stage.update(metrics.step, tokens=int(metrics.values.get("train/tokens", 0.0)), note=note)
            run.tracker.log(student.name, [Point(n, v, metrics.step) for n, v in metrics.values.items()])

        def train(job: TrainJob) -> Mapping[str, object]:
            run.need_cluster()
            return train_in_gang(job, log_dir=run.logs, accelerator=run.device, on_step=on_step)

        trained = train_link(
            link,
            config=run.config,
            identity=teacher.identity,
            view_paths=views.paths,
            vocab=teacher.files.vocab,
            accelerator=run.device,
            artifacts=run.artifacts,
            train=train,
        )
        curve = read_curve(link.output_dir / CURVES)
        if not trained:
            points = [Point(n, v, m.step) for m in curve for n, v in m.values.items()]
            run.tracker.log(student.name, points)
        dev = [m.values["dev/loss"] for m in curve if "dev/loss" in m.values]
        stage.summary = f"{steps} steps" if trained else "reused: nothing that it depends on has changed"
        if dev:
            stage.summary += f", dev loss {dev[0]:.3f} -> {dev[-1]:.3f}"
    run.tracker.flush()


def _track_student(run: Run, student: Student, *, views: Views) -> None:
    view = views.views[student.links[0].train_view]
    settings = run.config.students[student.name].model_dump(mode="json", exclude_none=True)
    reused = all(link.finished for link in student.links)
    run.tracker.child(
        student.name,
        params=flatten(settings),
        tags={"role": "student", "student_digest": student.digest, "reused": str(reused).lower()},
        dataset=(view.dataset, view.digest),
    )


def _scoring_job(run: Run, candidate: Candidate, *, teacher: Teacher, views: Views) -> ScoringJob:
    return ScoringJob(
        model_dir=candidate.directory.resolve(),
        cache_root=run.config.runtime.cache_root.resolve(),
        identity=teacher.identity,
        view=views.paths["teacher-test"].resolve(),
        vocab=teacher.files.vocab,
        dtype=run.config.teacher.dtype,
        accelerator=run.device,
        log_file=run.logs / "scoring.log",
    )


def _limited(request: GenerateRequest, limit: int) -> GenerateRequest:
    return replace(request, max_new_tokens=limit)


def _some_prompts(plan: FillPlan) -> list[tuple[int, ...]]:
    requests = [request for part in plan.sets for request in part.sequences.requests]
    prompts = [r.prompt_ids if isinstance(r, GenerateRequest) else r.token_ids for r in requests]
    return prompts[:CHECK_PROMPTS]


def _seconds_budget(run: Run) -> float | None:
    hours = run.config.budgets.max_gpu_hours
    if hours is None:
        return None
    engine = run.config.runtime.teacher_engine
    return hours * 3600 / (engine.count * engine.tensor_parallel)


def rejected_of(prompts: PromptSet, result: FillResult) -> PromptSet:
    """The prompts with the rows that the teacher could not answer added to those set aside."""
    failures = [Rejected("fill", position, reason, "") for position, reason in enumerate(result.failed.values())]
    return PromptSet(prompts.splits, (*prompts.rejected, *failures))
