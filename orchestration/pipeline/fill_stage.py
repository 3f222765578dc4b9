"""The fill of a run: ask a teacher for what the cache lacks, then pin what its students will read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache import GenerateRequest, TeacherCache
from cache.answers import Request
from cache.erasures import forgotten_among
from configs.places import absolute_root
from configs.stages import StageConfig
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.reference import kept_reference
from orchestration.fill.budgets import budgets_left
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import FillResult, fill
from orchestration.fill.refusals import engine_version
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson, pin_lesson
from orchestration.pipeline.run import AnyRun, Journal, RunSettings
from orchestration.pipeline.screened_answers import unlearned_answers
from orchestration.pipeline.stage import Line, Stage, run_stage
from orchestration.pipeline.unanswered import without_refused
from orchestration.pipeline.workers import Workers
from orchestration.plan.left_out import ASK_AGAIN, forgotten_in_words
from orchestration.plan.requests import FillPlan, SequenceSet
from teacher_server.reference import NoReferenceError, ReferenceRows
from teacher_server.startup_check import check_prompts, reference_dtype, weight_bytes

CHECK_PROMPTS = 2
"""Prompts on which engines are compared with a plain forward pass."""

LARGE_BYTES = 64 * 2**30
"""Of weights; beyond it one prompt has to do, because reading them all takes the reference minutes."""


@dataclass(frozen=True, slots=True)
class AskedTeacher:
    """A teacher with its cache and its engines (or its door), and what it is to be asked."""

    teacher: Teacher
    cache: TeacherCache
    pool: EnginePool | DoorPool
    plan: FillPlan

    @property
    def sets(self) -> list[SequenceSet]:
        """The sequences that are wanted of it, whoever wrote them."""
        return [part.sequences for part in self.plan.sets]


def fill_and_pin(
    asked: AskedTeacher,
    *,
    settings: RunSettings,
    journal: Journal,
    compute: Compute,
    prompts: PromptSet,
    assistant: str | None = None,
) -> tuple[Lesson, PromptSet]:
    """Fill the cache of the teacher (or of the student `assistant`) and pin the lesson.

    Returns the prompts with the rows that could not be answered set aside. Starts no engine when nothing is missing.

    Raises:
        CacheError: a set has no row at all.
        DataError: filters leave no row.
    """
    failed = ask(asked, settings=settings, journal=journal, compute=compute)
    stages, folder = settings.config.stages_taught_by(assistant), assistant or ""
    return pin_answered(
        asked, failed=failed, settings=settings, journal=journal, prompts=prompts, stages=stages, folder=folder
    )


def ask(asked: AskedTeacher, *, settings: RunSettings, journal: Journal, compute: Compute) -> dict[Request, str]:
    """Fill the cache of a teacher; what it could not answer, which it is not asked again, and why.

    `settings` are those of an experiment with this teacher alone.

    Raises:
        BudgetReached: a budget ended the fill before all rows were there.
        EngineError: an engine does not say what its weights say, or kept dying.
    """
    failed = run_fill(asked, order=_order(asked, settings, journal), run=settings, journal=journal, workers=compute)
    return failed


def pin_answered(
    asked: AskedTeacher,
    *,
    failed: Mapping[Request, str],
    settings: RunSettings,
    journal: Journal,
    prompts: PromptSet,
    stages: Sequence[StageConfig],
    folder: str = "",
) -> tuple[Lesson, PromptSet]:
    """Pin the lesson of a filled cache for these stages, in a folder of the views.

    Returns the prompts with the rows of which nothing could be answered set aside.

    Raises:
        CacheError: a set has no row at all.
        DataError: filters leave no row.
    """
    before, sets = len(prompts.rejected), asked.sets
    gone = unlearned_answers(asked, prompts=prompts, settings=settings, journal=journal)
    failed = {**failed, **gone}
    # What is in the cache and not learned has to be left out of views.
    if gone:
        sets = [replace(each, left_out=each.left_out | {r for r in each.requests if r in gone}) for each in sets]
    prompts = without_refused(prompts, sets, failed=failed)
    written = settings.directory / (f"rejected-{folder}.jsonl" if folder else "rejected.jsonl")
    prompts.write_rejected(written)
    if failed:
        what = "could not be answered, or their answers are not learned" if gone else "could not be answered"
        journal.console.warn(f"{len(prompts.rejected) - before} rows {what}, see {written}")
    lesson = pin_lesson(
        sets,
        journal=journal,
        teacher=asked.teacher,
        cache=asked.cache,
        stages=stages,
        prompts=prompts.splits,
        folder=settings.directory / "views" / folder,
    )
    return lesson, prompts


def run_fill(
    asked: AskedTeacher, *, order: FillOrder, run: AnyRun, journal: Journal, workers: Workers
) -> dict[Request, str]:
    """Ask for what is missing, with engines that agree with a plain forward pass; what could not be answered, and why.

    Engines behind a door were compared where they started.

    Raises:
        BudgetReached: a budget ended the fill before all rows were there.
        EngineError: an engine does not say what its weights say, or kept dying.
        DoorError: the teacher's door stayed away, or answered what cannot be.
    """
    if not isinstance(asked.pool, DoorPool):
        run_stage(EngineCheck(asked, asked.pool, run, journal, workers), settings=run, journal=journal)
    failed = run_stage(Fill(asked, order, run, journal), settings=run, journal=journal)
    warn_of_failures(failed, before=asked.plan.refused, label=asked.teacher.known_as, journal=journal)
    return failed


def warn_of_failures(
    failed: Mapping[Request, str], *, before: Mapping[Request, str], label: str, journal: Journal
) -> None:
    """Say how many requests were not answered: forgotten, or refused, now or `before`; and how they are asked."""
    forgotten, known_before = forgotten_among(failed), len(before) - forgotten_among(before)
    count = len(failed) - forgotten
    if count:
        known = f", {known_before:,} of which were known before and left out" if known_before else ""
        journal.console.warn(
            f"{count:,} sequences could not be answered by {label}{known}; they are not asked again before the engine "
            f"changes: {ASK_AGAIN}"
        )
    if forgotten:
        journal.console.warn(forgotten_in_words(forgotten, what="sequences"))


def _order(asked: AskedTeacher, settings: RunSettings, journal: Journal) -> FillOrder:
    config = settings.config
    return FillOrder(
        scoring=False,
        cache_root=absolute_root(config.runtime.cache_root),
        k=config.teacher.top_k,
        commit_every_s=config.runtime.commit_every_s,
        licence=config.teacher.licence_as_used,
        provenance=asked.teacher.provenance(config),
        ledger=journal.ledger.directory.absolute(),
        encoding=config.teacher.encoding,
        gpus=0.0 if asked.teacher.door is not None else config.runtime.teacher_engine.ranks,
        engine=engine_version(config.runtime, k=config.teacher.top_k, door=asked.teacher.door),
    )


@dataclass(slots=True)
class EngineCheck(Stage[list[tuple[int, ...]], str, None]):
    """Start the teacher's engines, if there is anything to ask, and compare them with a plain forward pass."""

    asked: AskedTeacher
    pool: EnginePool
    settings: AnyRun
    journal: Journal
    workers: Workers

    def prepare(self) -> list[tuple[int, ...]] | None:
        """Prompts on which to compare; None when no engine is needed."""
        plan, files = self.asked.plan, self.asked.teacher.files
        if not plan.asks_teacher:
            return None
        self.workers.need_cluster()
        requests = (each for part in plan.sets for each in part.sequences.requests if each not in part.refused)
        return check_prompts(
            (r.prompt_ids if isinstance(r, GenerateRequest) else r.token_ids for r in requests),
            bos_id=files.leading_bos,
            max_model_len=self.settings.config.runtime.teacher_engine.max_model_len,
            count=1 if self._large else CHECK_PROMPTS,
        )

    def line(self) -> Line:
        """See `Stage`."""
        return Line("teacher engine", place="teacher")

    def run(self, work: list[tuple[int, ...]], progress: StageProgress) -> str:
        """Compare; says what came of it."""
        progress.update(0, note="importing vLLM, loading weights")
        teacher = self.asked.teacher
        directory = teacher.files.directory.resolve()

        def report(done: int, total: int) -> None:
            progress.update(0, note=f"comparing with transformers: {done} of {total} layers")

        def reference(sequences: Sequence[tuple[int, ...]]) -> list[ReferenceRows]:
            progress.update(0, note="comparing with transformers")
            return kept_reference(
                sequences,
                folder=Path(self.settings.config.runtime.run_root).absolute()
                / "references"
                / teacher.identity.digest()[:16],
                model_dir=directory,
                dtype=reference_dtype(directory, served=teacher.identity.dtype),
                log_dir=self.settings.logs,
                report=report,
            )

        files = teacher.files
        try:
            self.pool.check(work, stop_ids=files.stop_ids, bos_id=files.leading_bos, reference=reference)
        except NoReferenceError as error:
            self.journal.console.warn(f"the engines were not compared with a plain forward pass: {error}")
            return "not compared with a plain forward pass"
        sampled = f" on one prompt, for its weights are beyond {LARGE_BYTES / 2**30:.0f} GiB" if self._large else ""
        return f"agree with a plain forward pass{sampled}"

    def keep(self, made: str | None) -> None:
        """Nothing: an engine is checked whenever it starts."""

    def summary(self, made: str | None, kept: None) -> str:
        """See `Stage`."""
        return f"{self.settings.config.runtime.teacher_engine.count} up, {made}"

    @property
    def _large(self) -> bool:
        return weight_bytes(self.asked.teacher.files.directory.resolve()) > LARGE_BYTES


@dataclass(slots=True)
class Fill(Stage[FillPlan, FillResult[Request], dict[Request, str]]):
    """Ask for what the cache lacks; keeps it as it comes, and gives what the teacher could not answer, with reasons."""

    asked: AskedTeacher
    order: FillOrder
    settings: AnyRun
    journal: Journal

    def prepare(self) -> FillPlan | None:
        """The plan, unless every row is in the cache."""
        return self.asked.plan if self.asked.plan.misses else None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("fill", total=self.asked.plan.misses, unit="rows", always_shown=True, place="teacher")

    def run(self, work: FillPlan, progress: StageProgress) -> FillResult[Request]:
        """Fill within the budgets of the experiment.

        Raises:
            BudgetReached: a budget ended the fill before all rows were there.
        """
        config, ledger = self.settings.config, self.journal.ledger
        return fill(
            work,
            cache=self.asked.cache,
            engines=self.asked.pool,
            order=self.order,
            # Behind a door nobody's GPUs are counted here.
            budgets=budgets_left(
                config.budgets,
                spent=ledger.counts(),
                engines=None if isinstance(self.asked.pool, DoorPool) else config.runtime.teacher_engine,
            ),
            vocab=self.asked.teacher.files.vocab,
            progress=progress,
        )

    def keep(self, made: FillResult[Request] | None) -> dict[Request, str]:
        """What the teacher could not answer, now or before."""
        self.asked.cache.refresh()
        return self.asked.plan.refused if made is None else made.failed

    def summary(self, made: FillResult[Request] | None, kept: dict[Request, str]) -> str:
        """See `Stage`."""
        if made is None:
            return "nothing to ask: every row is in the cache"
        text = f"{made.rows:,} new rows, {made.response_tokens:,} response tokens"
        return f"{text}, {made.from_others:,} rows fetched by another pipeline" if made.from_others else text
