"""The training of one stage, in each process of a worker group: the loop, whatever is learned."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from cache.disk.failpoints import failpoint
from configs.errors import TrainingError
from student_train.job import StageJob, TrainResult
from student_train.losses.metrics import means
from student_train.models.adapters import merge_adapters
from student_train.training.checkpoint import TRAINING_FAILPOINT
from student_train.training.learner import Learner, Step
from student_train.training.overfit import first_overfit
from student_train.training.random_state import random_state, set_random_state
from student_train.training.schedule import learning_rate
from student_train.training.selection import measurement_due
from student_train.training.state import MetricsReport, TrainingState
from student_train.training.stopping import ShouldStop, StopRequest, sigterm_asks
from student_train.training.worker import StageWorker
from student_train.worker_group import join_group, peak_memory_gib

if TYPE_CHECKING:
    from student_train.training.deepspeed_engine import StepOutcome

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10
"""As many steps as this without a finite gradient, one after the other, are a failure and not an accident."""

_ROWS_SHOWN = 8


def train(
    job: StageJob,
    *,
    kind: type[Learner],
    report: MetricsReport,
    should_stop: ShouldStop,
) -> TrainResult:
    """Train one stage of some kind and export the student, see `student_train.training.stages.train_stage`.

    Raises:
        ConfigError: the checkpoint belongs to other data, another stage or another ZeRO stage.
        TrainingError: no finite gradient for ten steps in a row, or a checkpoint that the disk did not keep.
    """
    group = join_group(job.accelerator)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    # Every process draws the same new weights here; from the second seed on, each draws (for dropout) on its own.
    torch.manual_seed(job.stage.seed)
    learner = kind(job, group=group)
    torch.manual_seed(job.stage.seed * 1_000_003 + group.rank)
    with sigterm_asks(should_stop) as asks:
        engine = DeepSpeedEngine(learner.module, stage=job.stage, settings=job.settings, group=group)
        try:
            stop = StopRequest(asks, group=group)
            worker = StageWorker(job=job, group=group, engine=engine, model=learner.model, stop=stop)
            return _Run(worker, learner=learner, report=report).run()
        finally:
            engine.close()


class _Run:
    """One call of `train`: the loop over optimiser steps."""

    def __init__(self, worker: StageWorker, *, learner: Learner, report: MetricsReport) -> None:
        self._worker, self._learner, self._stage = worker, learner, worker.job.stage
        self._total = learner.total_steps
        self._state = TrainingState(worker, data_digest=learner.data_digest, report=report)

    def run(self) -> TrainResult:
        """Train to the end, or until asked to stop."""
        state = self._state
        state.resume()
        begun_at = time.time()
        try:
            finished = self._train()
        finally:
            state.close()
        if finished:
            self._export()
        return TrainResult(
            finished=finished,
            output_dir=self._worker.job.output_dir,
            steps=state.step,
            tokens=state.tokens,
            skipped=state.skipped,
            selected_step=state.selected_step if finished else None,
            dev_losses=tuple((at.step, at.values["dev/loss"]) for at in state.measured),
            begun_at=begun_at,
        )

    def _train(self) -> bool:
        """Whether the end was reached, and not a request to stop. Either way all that was done is in a checkpoint.

        Each turn measures, saves and steps, in this order: a checkpoint holds the measurement of its own step, and the
        last turn ends between saving and stepping. A checkpoint is written while the next steps are taken.
        """
        state, group = self._state, self._worker.group
        steps = self._learner.steps(self._worker, first=state.step)
        saved_at = time.monotonic()
        while True:
            self._measure_if_due()
            stop = self._worker.stop.asked()
            ended = state.step == self._total or self._learner.ended_early(state.measured)
            # A request to stop may have ended the last measurement without a result: then there is one to make up for.
            done = ended and not self._unmeasured()
            # The best weights exist only now: they are kept at once.
            improved = state.best is not None and state.best.step == state.step
            # Clocks differ: the leader's decides, and `any` carries its answer to the others. What nothing but time
            # asks for waits until the one before is written; what went wrong with that one is told at once.
            late = time.monotonic() - saved_at > self._worker.job.settings.checkpoint_every_s and not state.committing
            if group.any((group.leads and late) or state.commit_failed) or done or stop or improved:
                state.save()
                saved_at = time.monotonic()
            if done or stop:
                state.settle()
                return done
            self._step(steps)
            if state.committing:
                failpoint(TRAINING_FAILPOINT)

    def _step(self, steps: Iterator[Step | None]) -> None:
        """One optimiser step. A step that is given up because of a request to stop leaves everything as it was."""
        worker, state, stage = self._worker, self._state, self._stage
        # Half a step has drawn random numbers too (dropout). Without going back, a resumed training would draw others.
        random, started = random_state(), time.monotonic()
        work = next(steps)
        if work is None:
            return
        waited = time.monotonic() - started
        rate = learning_rate(
            state.step,
            peak=stage.learning_rate,
            total_steps=self._total,
            warmup_steps=stage.warmup_steps,
            schedule=stage.schedule,
        )
        outcome = worker.engine.step(work.batches, places=work.places, learning_rate=rate, stop=worker.stop.asked)
        if outcome is None:
            set_random_state(random)
            return
        state.advance(tokens=work.tokens, skipped=outcome.skipped)
        if self._learner.from_teacher and not outcome.skipped:
            state.learn(outcome.sums, known=work.known)
        seconds = max(time.monotonic() - started, 1e-9)
        state.report(
            {
                "train/learning_rate": rate,
                "train/tokens": float(state.tokens),
                "train/tokens_per_s": work.tokens / seconds,
                "train/data_wait_share": waited / seconds,
                "train/padding_share": work.padding_share,
                "train/memory_gib": peak_memory_gib(worker.group.device),
                "train/skipped_steps": float(state.skipped),
                **work.metrics,
                **_losses(work, outcome),
            }
        )
        if outcome.skipped:
            self._warn_of_skip(work)

    def _warn_of_skip(self, work: Step) -> None:
        """Log which rows a dropped step read.

        Raises:
            TrainingError: too many steps were dropped in a row.
        """
        state = self._state
        shown = ", ".join(work.rows[:_ROWS_SHOWN])
        more = f" and {len(work.rows) - _ROWS_SHOWN} more" if len(work.rows) > _ROWS_SHOWN else ""
        logger.warning(
            "step %d was dropped: its gradient was not finite; it read %s %s%s", state.step, work.rows_are, shown, more
        )
        if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            state.settle()
            kept = "there is no checkpoint yet" if state.newest is None else f"the last checkpoint is {state.newest}"
            raise TrainingError(
                f"no finite gradient in the {MAX_SKIPPED_IN_A_ROW} steps up to {state.step}: lower "
                f"learning_rate={self._stage.learning_rate} or set dtype: float32; {kept}"
            )

    def _unmeasured(self) -> bool:
        """Whether the held-out split has still to be measured at this step."""
        state = self._state
        due = measurement_due(state.step, total=self._total, every=self._stage.evaluate_every)
        return self._learner.measures and due and (not state.measured or state.measured[-1].step != state.step)

    def _measure_if_due(self) -> None:
        """Measure the held-out split. A request to stop ends that without a result; the next process measures again."""
        if not self._unmeasured():
            return
        values = self._learner.measure(self._worker)
        if values is None:
            return
        self._state.add_measurement(values)
        found = first_overfit(self._state.measured)
        if found is not None and found.step == self._state.step and self._worker.group.leads:
            logger.warning("%s", found.warning(self._stage.against_overfit))

    def _export(self) -> None:
        """The leader writes the student; the others wait until it is there."""
        weights = self._state.selected_weights()
        if weights is not None:
            if self._stage.lora is not None:
                weights = merge_adapters(weights, self._stage.lora)
            self._learner.export(weights, state=self._state)
        self._worker.group.barrier()


def _losses(work: Step, outcome: StepOutcome) -> dict[str, float]:
    """What a step's sums say, each divided once; nothing where the step was dropped."""
    if outcome.skipped:
        return {}
    return {"train/grad_norm": outcome.grad_norm} | means("train", outcome.sums, known=work.known)
