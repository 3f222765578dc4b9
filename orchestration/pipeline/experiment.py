"""An experiment from its configuration to the comparison."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from cache import TeacherCache
from configs import BudgetReached, DistillConfig, configure_logging, dump_config
from orchestration.cluster.nodes import cluster_hardware
from orchestration.comparison.report import Report, write_report
from orchestration.comparison.show import directory_of, show_report
from orchestration.fill.ledger import Ledger
from orchestration.fill.refusals import open_refusals
from orchestration.inputs.preflight import require_cache, require_compiler, require_writable, resolve_paths
from orchestration.inputs.prompts import PromptSet, load_prompts
from orchestration.inputs.shapes import PlannedShape, student_shapes
from orchestration.inputs.teachers import Teacher, open_cache, open_teacher
from orchestration.outputs.artifacts import Artifacts, claim_directory, sweep_run
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import RestsOn, content_of, model_sources, require_unchanged, rested_on
from orchestration.outputs.redirect import terminal_kept
from orchestration.pipeline.chain import Student
from orchestration.pipeline.compare import evaluate_stage, teacher_stage, test_bench
from orchestration.pipeline.fill_stage import lesson_stage
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Run
from orchestration.pipeline.starts import Start
from orchestration.pipeline.train_students import calibration_stage, start_stage, train_stage
from orchestration.plan.hardware import hardware_of
from orchestration.plan.host_memory import check_host
from orchestration.plan.placement import plan_placement
from orchestration.plan.requests import FillPlan, plan_fill, sequence_sets
from orchestration.plan.tables import fill_time, show_plan, show_rollouts
from orchestration.tracking.store import tracking_uri
from orchestration.tracking.tracker import Tracker, flatten

Until = Literal["fill", "train", "eval"]
"""The last stage that is run."""

PROBE_S = 15.0
"""A tracker that does not answer in this time is taken for slow; the first answer of a new SQLite file takes three."""

logger = logging.getLogger(__name__)


class Pipeline:
    """One experiment; `run` goes as far as it is told and never does again what is done."""

    def __init__(self, config: DistillConfig, *, config_dir: Path) -> None:
        self._as_written = config
        self._config_dir = config_dir
        self._content: dict[str, str] = {}

    def run(self, *, until: Until) -> Report | None:
        """See `orchestration.run_pipeline`."""
        config = resolve_paths(self._as_written, config_dir=self._config_dir)
        runtime = config.runtime
        hardware = hardware_of(config, ask_cluster=cluster_hardware)
        require_compiler(hardware.accelerator)
        require_writable(runtime.run_root, key="runtime.run_root")
        require_cache(runtime.cache_root)
        require_writable(runtime.models_root, key="runtime.models_root")
        self._content = content_of(self._as_written, config_dir=self._config_dir)
        directory = directory_of(self._as_written, self._content)
        log_file = directory / "logs" / "driver.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with (
            claim_directory(directory),
            terminal_kept(log_file) as terminal,
            closing(Console(terminal)) as console,
        ):
            # Standard error goes to the log from here on, but warnings are for whoever watches.
            configure_logging(log_file, console=console.warnings)
            console.say(f"Experiment {config.name} in {directory} (logs in {directory / 'logs'})")
            (directory / "config.yaml").write_text(dump_config(self._as_written))
            run = Run(
                config=config,
                directory=directory,
                hardware=hardware,
                console=console,
                tracker=Tracker(directory, uri=tracking_uri(config)),
                artifacts=Artifacts(runtime.run_root, say=console.warn),
                ledger=Ledger.open(directory),
            )
            run.artifacts.sweep()
            sweep_run(directory)
            try:
                if runtime.tracking_uri is not None:
                    run.tracker.require_usable(at_most_s=PROBE_S)
                return self._stages(run, until=until)
            finally:
                try:
                    run.close()
                finally:
                    run.tracker.close()

    def _stages(self, run: Run, *, until: Until) -> Report | None:
        with run.console.stage("teacher", unit="MB hashed") as stage:

            def hashing(done: int, total: int) -> None:
                stage.total = total / 1e6
                stage.update(done / 1e6)

            teacher = open_teacher(run.config, progress=hashing)
            stage.summary = f"{teacher.files.label}, identity {teacher.identity.digest()[:12]}"
        shape = PlannedShape(teacher.files.label, teacher.files.shape, assumed=False)
        students = student_shapes(run.config.students, teacher=shape)
        placement = plan_placement(run.config, teacher=shape, students=students, hardware=run.hardware)
        prompts = self._prompts(run, teacher)
        self._require_unchanged()  # before anything is paid for
        starts = start_stage(run, teacher=teacher)
        cache = open_cache(run.config, teacher)
        sets = sequence_sets(run.config, prompts.splits, stop_ids=teacher.files.stop_ids)
        plan = plan_fill(sets, cache=cache, refused=open_refusals(run.config, teacher))
        show_plan(
            plan,
            time=fill_time(plan, config=run.config, teacher=shape, accelerator=run.device),
            console=run.console,
        )
        show_rollouts(run.config, console=run.console)
        for warning in check_host(placement.phases, memory=run.hardware.memory, asks_teacher=plan.asks_teacher):
            run.console.warn(warning)
        require_cache(run.config.runtime.cache_root, needed_bytes=plan.stored_bytes)
        self._start_tracking(run, plan)
        try:
            report = self._work(run, teacher, starts, prompts, cache, plan, until=until)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | BudgetReached)
            run.tracker.finish_all(status="KILLED" if stopped else "FAILED")
            raise
        run.tracker.finish_all(status="FINISHED")
        return report

    def _work(
        self,
        run: Run,
        teacher: Teacher,
        starts: Mapping[str, Start | None],
        prompts: PromptSet,
        cache: TeacherCache,
        plan: FillPlan,
        *,
        until: Until,
    ) -> Report | None:
        pool = run.pool(
            teacher.files, teacher.identity, settings=run.config.runtime.teacher_engine, k=run.config.teacher.top_k
        )
        texts = {prompt.prompt_ids: prompt.text for prompt in prompts.splits["test"]}
        lesson, prompts = lesson_stage(run, plan, teacher=teacher, cache=cache, pool=pool, prompts=prompts)
        _track_fill(run, plan, lesson=lesson)
        if until == "fill":
            return None
        bench = test_bench(run, lesson=lesson, sets=[part.sequences for part in plan.sets])
        evaluated_teacher = teacher_stage(run, teacher=teacher, bench=bench, pool=pool) if until == "eval" else None
        pool.release()
        untouched = calibration_stage(run, starts, lesson=lesson)
        students = train_stage(run, untouched, lesson=lesson, prompts=prompts)
        if evaluated_teacher is None:
            return None
        models = evaluate_stage(run, students, lesson=lesson, bench=bench)
        run.tracker.log_final("pipeline", run.ledger.metrics())
        report = Report(
            experiment=run.config.name,
            config_digest=self._as_written.digest(),
            cache_digest=bench.view.digest,
            prompts=tuple(texts[request.prompt_ids] for request in bench.requests),
            references=bench.texts(bench.references()),
            models=(evaluated_teacher, *models),
            times=tuple(run.console.times),
            teacher_forward_tokens=run.ledger.counts().tokens,
            rejected_rows=len(prompts.rejected),
            rests_on=_rested_on(run, teacher, students),
            notes=tuple(note for student in students for note in student.notes),
        )
        self._publish(run, report)
        return report

    def _publish(self, run: Run, report: Report) -> None:
        self._require_unchanged()
        write_report(report, run.directory)
        run.tracker.artifact("pipeline", run.directory / "report.md")
        run.tracker.artifact("pipeline", run.directory / "config.yaml")
        show_report(report, self._as_written, directory=run.directory, console=run.console)

    def _require_unchanged(self) -> None:
        require_unchanged(self._as_written, config_dir=self._config_dir, since=self._content)

    def _prompts(self, run: Run, teacher: Teacher) -> PromptSet:
        with run.console.stage("prompts") as stage:
            prompts = load_prompts(
                run.config.data,
                tokenizer=teacher.files.tokenizer,
                stop_ids=teacher.files.stop_ids,
                max_new_tokens=run.config.generation.max_new_tokens,
            )
            counts = ", ".join(f"{len(rows):,} {name}" for name, rows in prompts.splits.items())
            stage.summary = counts + (f"; {len(prompts.rejected)} rows set aside" if prompts.rejected else "")
        prompts.write_rejected(run.directory / "rejected.jsonl")
        if prompts.rejected:
            first = prompts.rejected[0]
            run.console.warn(
                f"{len(prompts.rejected)} rows set aside in {run.directory / 'rejected.jsonl'}; the first: "
                f"{first.split} row {first.row}, {first.reason}"
            )
        return prompts

    def _start_tracking(self, run: Run, plan: FillPlan) -> None:
        params = flatten(self._as_written.model_dump(mode="json", exclude={"students"}, exclude_none=True))
        tags = {"config_digest": self._as_written.digest(), "run_dir": run.directory.name}
        if run.config.runtime.tracking_uri is None:  # the default store is made only for a run that can begin
            run.tracker.require_usable(at_most_s=PROBE_S)
        run.tracker.start(run.directory.name, params=params, tags=tags)
        run.tracker.child("fill", params={"misses": plan.misses}, tags={"role": "fill"})


def _rested_on(run: Run, teacher: Teacher, students: Sequence[Student]) -> RestsOn:
    starts = {student.name: student.start for student in students}
    directories = {f"students.{name}.init.model": start.directory for name, start in starts.items()}
    directories["teacher.model"] = teacher.files.directory
    return rested_on(
        run.config,
        directories={key: directories[key] for key, _ in model_sources(run.config)},
        starts=[s.digest for s in starts.values() if s.directory == run.artifacts.init_dir(s.digest)],
        students=[link.digest for student in students for link in student.links],
        run_dir=run.directory,
    )


def _track_fill(run: Run, plan: FillPlan, *, lesson: Lesson) -> None:
    rows = sum(len(part.sequences.requests) for part in plan.sets)
    run.tracker.log_final(
        "fill",
        {
            "cache/hit_rate": 1.0 - plan.misses / rows,
            "cache/bytes_per_token": lesson.cache.stats().bytes_per_token,
            "fill/teacher_tokens": float(run.ledger.counts().fill),
        },
    )
    run.tracker.finish("fill")
    logger.info("views: %s", {name: view.digest for name, view in lesson.views.items()})
