"""The training of one stage, in each process of a worker group."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import TrainingError
from student_train.feed.steps import StepBatch, total_steps, training_batches
from student_train.job import TrainJob, TrainResult
from student_train.losses.metrics import means
from student_train.models.adapters import attach_adapters, merge_adapters
from student_train.models.decoder import TORCH_DTYPES, Decoder, StudentModule, can_pack, load_decoder, normalised_rows
from student_train.models.export import ModelCard, export_student
from student_train.training.measuring import known_metrics, measure
from student_train.training.on_policy import OnPolicySteps
from student_train.training.random_state import random_state, set_random_state
from student_train.training.readiness import require_ready
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

_KEYS_SHOWN = 8


def train_stage(job: TrainJob, *, report: MetricsReport, should_stop: ShouldStop) -> TrainResult:
    """Train one stage and export the student; to be called in every process of the worker group.

    Resumes from the newest sound checkpoint of `job.work_dir`. `report` is called on every process with the same
    metrics (but for wall times and memory, which are each process's own); after a resume it gets those of the last
    checkpoint again. When `should_stop` says so on any process, or one of them gets SIGTERM in its main thread, all of
    them write a checkpoint and return with `finished` False.

    Raises:
        ConfigError: the checkpoint belongs to other data, another stage or another ZeRO stage.
        DistillError: stage, data and student do not go together (`student_train.training.readiness`).
        TrainingError: no finite gradient for ten steps in a row.
    """
    group = join_group(job.accelerator)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    # Every process draws the same new weights here; from the second seed on, each draws (for dropout) on its own.
    torch.manual_seed(job.stage.seed)
    decoder = load_decoder(
        job.model_dir,
        dtype=TORCH_DTYPES[job.stage.dtype],
        gradient_checkpointing=job.settings.gradient_checkpointing,
    )
    packs = job.settings.packing == "auto" and can_pack(decoder)
    if job.stage.lora is not None:
        attach_adapters(decoder.model, job.stage.lora)
    torch.manual_seed(job.stage.seed * 1_000_003 + group.rank)
    module = StudentModule(decoder, stage=job.stage, vocab=_rows(job, decoder))
    with sigterm_asks(should_stop) as asks:
        engine = DeepSpeedEngine(module, stage=job.stage, settings=job.settings, group=group)
        try:
            worker = StageWorker(
                job=job,
                group=group,
                engine=engine,
                decoder=decoder,
                cache=TeacherCache.open(job.cache_root, job.identity, create=False),
                stop=StopRequest(asks, group=group),
                packs=packs,
            )
            return _Run(worker, report=report).run()
        finally:
            engine.close()


def _rows(job: TrainJob, decoder: Decoder) -> int:
    """Over how many rows of the output matrix the student is normalised, in training and on the held-out split."""
    views = [CacheView.load(path) for path in (job.train_view, job.dev_view) if path is not None]
    return normalised_rows(decoder.vocab, vocab=job.vocab, k=max(view.k for view in views))


class _Run:
    """One call of `train_stage`: the loop over optimiser steps."""

    def __init__(self, worker: StageWorker, *, report: MetricsReport) -> None:
        job = worker.job
        self._worker, self._stage = worker, job.stage
        self._view = CacheView.load(job.train_view)
        self._dev = None if job.dev_view is None else CacheView.load(job.dev_view)
        require_ready(
            job.stage,
            view=self._view,
            dev=self._dev,
            model_dir=job.model_dir,
            vocab=job.vocab,
            micro_batch_tokens=job.settings.micro_batch_tokens,
        )
        self._total = total_steps(job.stage, view=self._view)
        self._state = TrainingState(worker, view=self._view, report=report)
        self._on_policy = None if job.stage.rollout is None else OnPolicySteps(worker)

    def run(self) -> TrainResult:
        """Train to the end, or until asked to stop."""
        state = self._state
        state.resume()
        begun_at = time.time()
        finished = self._train()
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
        last turn ends between saving and stepping.
        """
        state, group = self._state, self._worker.group
        steps = self._steps(state.step)
        saved_at = time.monotonic()
        while True:
            self._measure_if_due()
            stop = self._worker.stop.asked()
            # A request to stop may have ended the last measurement without a result: then there is one to make up for.
            done = (state.step == self._total or self._collapsed()) and not self._unmeasured()
            # The best weights exist only now: they are kept at once.
            improved = state.best is not None and state.best.step == state.step
            # Clocks differ: the leader's decides, and `any` carries its answer to the others.
            late = group.any(group.leads and time.monotonic() - saved_at > self._worker.job.settings.checkpoint_every_s)
            if done or stop or improved or late:
                state.save()
                saved_at = time.monotonic()
            if done or stop:
                return done
            self._step(steps)

    def _steps(self, first: int) -> Iterator[StepBatch | None]:
        """The work of step number `first` and of those after it; None where a request to stop came first."""
        if self._on_policy is not None:
            return self._on_policy.steps(first)
        batches = training_batches(self._stage, view=self._view, first=first, steps=self._total)
        return self._worker.training_feed(self._view).steps(batches)

    def _collapsed(self) -> bool:
        return self._on_policy is not None and self._on_policy.collapsed

    def _step(self, steps: Iterator[StepBatch | None]) -> None:
        """One optimiser step. A step that is given up because of a request to stop leaves everything as it was."""
        worker, state, stage = self._worker, self._state, self._stage
        # Half a step has drawn random numbers too (dropout). Without going back, a resumed training would draw others.
        random, started = random_state(), time.monotonic()
        batch = next(steps)
        if batch is None:
            return
        waited = time.monotonic() - started
        rate = learning_rate(
            state.step,
            peak=stage.learning_rate,
            total_steps=self._total,
            warmup_steps=stage.warmup_steps,
            schedule=stage.schedule,
        )
        outcome = worker.engine.step(
            batch.batches + batch.plain,
            global_tokens=batch.response_tokens,
            learning_rate=rate,
            stop=worker.stop.asked,
        )
        if outcome is None:
            set_random_state(random)
            return
        state.advance(tokens=batch.tokens, skipped=outcome.skipped)
        seconds = max(time.monotonic() - started, 1e-9)
        state.report(
            {
                "train/learning_rate": rate,
                "train/tokens": float(state.tokens),
                "train/tokens_per_s": batch.tokens / seconds,
                "train/data_wait_share": waited / seconds,
                # The model does not read the last token of a record.
                "train/padding_share": 1.0 - (batch.tokens - len(batch.keys)) / batch.padded_tokens,
                "train/memory_gib": peak_memory_gib(worker.group.device),
                "train/skipped_steps": float(state.skipped),
                **batch.metrics,
                **self._losses(batch, outcome),
            }
        )
        if outcome.skipped:
            self._warn_of_skip(batch)

    def _losses(self, batch: StepBatch, outcome: StepOutcome) -> dict[str, float]:
        """What a step's sums say, each divided once by its tokens; nothing where the step was dropped."""
        if outcome.skipped:
            return {}
        names = known_metrics(batch, group=self._worker.group)
        values = {"train/grad_norm": outcome.grad_norm}
        values |= means("train", outcome.sums, names=names, tokens=batch.response_tokens)
        if batch.plain:
            values |= means("train", outcome.sums, names=("pretrain",), tokens=batch.plain_tokens)
        return values

    def _warn_of_skip(self, batch: StepBatch) -> None:
        """Log which records a dropped step read.

        Raises:
            TrainingError: too many steps were dropped in a row.
        """
        state = self._state
        shown = ", ".join(key[:12] for key in batch.keys[:_KEYS_SHOWN])
        more = f" and {len(batch.keys) - _KEYS_SHOWN} more" if len(batch.keys) > _KEYS_SHOWN else ""
        logger.warning(
            "step %d was dropped: its gradient was not finite; it read records %s%s", state.step, shown, more
        )
        if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            kept = "there is no checkpoint yet" if state.newest is None else f"the last checkpoint is {state.newest}"
            raise TrainingError(
                f"no finite gradient in the {MAX_SKIPPED_IN_A_ROW} steps up to {state.step}: lower "
                f"learning_rate={self._stage.learning_rate} or set dtype: float32; {kept}"
            )

    def _unmeasured(self) -> bool:
        """Whether the held-out split has still to be measured at this step."""
        step = self._state.step
        due = measurement_due(step, total=self._total, every=self._stage.evaluate_every)
        return self._dev is not None and due and all(at.step != step for at in self._state.measured)

    def _measure_if_due(self) -> None:
        """Measure the held-out split. A request to stop ends that without a result; the next process measures again."""
        if self._dev is None or not self._unmeasured():
            return
        values = measure(self._worker, self._dev)
        if values is not None:
            self._state.add_measurement(values)

    def _export(self) -> None:
        """The leader writes the student; the others wait until it is there."""
        state, job = self._state, self._worker.job
        weights = state.selected_weights()
        if weights is not None:
            if job.stage.lora is not None:
                weights = merge_adapters(weights, job.stage.lora)
            card = ModelCard(
                teacher=job.teacher,
                licence=job.licence,
                start=job.start,
                view=self._view,
                stage=job.stage,
                steps=state.step,
                selected_step=state.selected_step,
                measured=state.measured,
            )
            export_student(self._worker.decoder.model, weights, start=job.model_dir, out=job.output_dir, card=card)
        self._worker.group.barrier()
