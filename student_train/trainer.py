"""The training of one stage, in each process of a gang."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import TrainingError
from student_train.checkpoint import Checkpoints, TrainerState, check_resumable
from student_train.export import ModelCard, export_student
from student_train.feed import Feed, StepBatch, held_out_batches, total_steps, training_batches
from student_train.fused import METRICS
from student_train.gang import Gang, join_gang
from student_train.job import StepMetrics, TrainJob, TrainResult
from student_train.model import TORCH_DTYPES, Decoder, StudentModule, load_decoder
from student_train.objectives import needs_targets
from student_train.schedule import learning_rate

if TYPE_CHECKING:
    from student_train.deepspeed_engine import DeepSpeedEngine

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10
"""So many steps without a finite gradient one after the other are a failure, not an accident."""

Report = Callable[[StepMetrics], None]


def train_stage(job: TrainJob, *, report: Report, should_stop: Callable[[], bool]) -> TrainResult:
    """Train one stage and export the student; to be called in every process of the gang.

    Goes on from the newest sound checkpoint of `job.work_dir`. `report` is called on every process with the same
    metrics, and again with those of the last checkpoint after a resume. When `should_stop` says so on any process, all
    of them write a checkpoint and return with `finished` False.

    Raises:
        ConfigError: the checkpoint belongs to other data, another stage or another number of processes.
        TrainingError: no finite gradient for ten steps in a row.
    """
    gang = join_gang(job.accelerator)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.deepspeed_engine import DeepSpeedEngine

    torch.manual_seed(job.stage.seed * 1_000_003 + gang.rank)
    decoder = load_decoder(job.model_dir, dtype=TORCH_DTYPES[job.stage.dtype])
    module = StudentModule(decoder, stage=job.stage, vocab=job.vocab)
    engine = DeepSpeedEngine(module, stage=job.stage, settings=job.settings, gang=gang)
    try:
        return _Run(job, gang=gang, engine=engine, decoder=decoder, report=report).run(should_stop)
    finally:
        engine.close()


@dataclass(slots=True)
class _Progress:
    """What a checkpoint carries from one process to its successor."""

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    dev_losses: tuple[tuple[int, float], ...] = ()
    pending: tuple[StepMetrics, ...] = ()


class _Run:
    """One call of `train_stage`: its parts, and the loop over optimiser steps."""

    def __init__(self, job: TrainJob, *, gang: Gang, engine: DeepSpeedEngine, decoder: Decoder, report: Report) -> None:
        self._job, self._gang, self._engine, self._decoder, self._report = job, gang, engine, decoder, report
        self._cache = TeacherCache.open(job.cache_root, job.identity, create=False)
        self._view = CacheView.load(job.train_view)
        self._dev = None if job.dev_view is None else CacheView.load(job.dev_view)
        self._total = total_steps(job.stage, view=self._view)
        self._checkpoints = Checkpoints(job.work_dir, gang=gang)
        self._progress = _Progress()

    def run(self, should_stop: Callable[[], bool]) -> TrainResult:
        """Train to the end, or until `should_stop`."""
        self._checkpoints.clean()
        self._resume()
        progress = self._progress
        batches = training_batches(self._job.stage, view=self._view, first=progress.step, steps=self._total)
        self._measure_if_due()
        saved_at = mark = time.monotonic()
        for batch in self._feed(self._view).steps(batches):
            self._step(batch, started=mark)
            self._measure_if_due()
            stop, due = self._agree(should_stop(), time.monotonic() - saved_at > self._job.settings.checkpoint_every_s)
            if stop or due or progress.step == self._total:
                self._save()
                saved_at = time.monotonic()
            if stop and progress.step < self._total:
                return self._result(finished=False)
            mark = time.monotonic()
        self._export()
        return self._result(finished=True)

    def _step(self, batch: StepBatch, *, started: float) -> None:
        progress, stage = self._progress, self._job.stage
        rate = learning_rate(
            progress.step,
            peak=stage.learning_rate,
            total_steps=self._total,
            warmup_steps=stage.warmup_steps,
            schedule=stage.schedule,
        )
        outcome = self._engine.step(batch.batches, global_tokens=batch.response_tokens, learning_rate=rate)
        progress.step += 1
        progress.tokens += batch.tokens
        progress.skipped += outcome.skipped
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if outcome.skipped else 0
        values = {
            "train/learning_rate": rate,
            "train/tokens": float(progress.tokens),
            "train/tokens_per_s": batch.tokens / max(time.monotonic() - started, 1e-9),
            "train/skipped_steps": float(progress.skipped),
        }
        if outcome.skipped:
            logger.warning("step %d left out: its gradient was not finite", progress.step)
        else:
            values["train/grad_norm"] = outcome.grad_norm
            values |= self._means("train", outcome.sums, tokens=batch.response_tokens)
        self._tell(values)
        if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"no finite gradient in the {MAX_SKIPPED_IN_A_ROW} steps up to {progress.step}: "
                f"lower learning_rate={stage.learning_rate} or set dtype: float32"
            )

    def _measure_if_due(self) -> None:
        """The held-out loss at the start, in the middle and at the end."""
        step = self._progress.step
        known = {measured for measured, _ in self._progress.dev_losses}
        if self._dev is None or step in known or step not in {0, self._total // 2, self._total}:
            return
        batches = held_out_batches(self._dev, tokens=self._job.settings.micro_batch_tokens * self._gang.world_size)
        sums, tokens = torch.zeros(len(METRICS), dtype=torch.float64, device=self._gang.device), 0
        for batch in self._feed(self._dev).steps(batches):
            sums += self._engine.evaluate(batch.batches)
            tokens += batch.response_tokens
        values = self._means("dev", self._gang.total(sums).tolist(), tokens=tokens)
        self._progress.dev_losses += ((step, values["dev/loss"]),)
        self._tell(values)

    def _means(self, prefix: str, sums: Sequence[float], *, tokens: int) -> dict[str, float]:
        """Metric sums divided once by the number of response tokens, under their tracking names."""
        shown = METRICS if self._reads_targets else ("loss", "agreement")
        return {f"{prefix}/{name}": sums[METRICS.index(name)] / tokens for name in shown}

    @property
    def _reads_targets(self) -> bool:
        return needs_targets(self._job.stage.objective)

    def _feed(self, view: CacheView) -> Feed:
        return Feed(
            cache=self._cache,
            view=view,
            gang=self._gang,
            micro_batch_tokens=self._job.settings.micro_batch_tokens,
            with_targets=self._reads_targets,
        )

    def _tell(self, values: dict[str, float]) -> None:
        metrics = StepMetrics(self._progress.step, values)
        self._progress.pending += (metrics,)
        self._report(metrics)

    def _agree(self, stop: bool, due: bool) -> tuple[bool, bool]:  # noqa: FBT001 - two flags in, the same two out
        """Stop when any process wants to; save when the leader's clock says so."""
        flags = self._gang.total(torch.tensor([float(stop), float(due and self._gang.leads)]))
        return bool(flags[0] > 0), bool(flags[1] > 0)

    def _save(self) -> None:
        progress = self._progress
        state = TrainerState(
            step=progress.step,
            tokens=progress.tokens,
            skipped=progress.skipped,
            skipped_in_a_row=progress.skipped_in_a_row,
            world_size=self._gang.world_size,
            view_digest=self._view.digest,
            stage_digest=self._job.stage_digest(),
            dev_losses=progress.dev_losses,
            pending=progress.pending,
        )
        self._checkpoints.save(state, write_shards=self._engine.save)
        progress.pending = ()

    def _resume(self) -> None:
        found = self._checkpoints.newest()
        if found is None:
            return
        path, state = found
        check_resumable(
            state,
            path=path,
            world_size=self._gang.world_size,
            view_digest=self._view.digest,
            stage_digest=self._job.stage_digest(),
        )
        self._engine.load(path)
        self._checkpoints.restore_random(path)
        self._progress = _Progress(
            step=state.step,
            tokens=state.tokens,
            skipped=state.skipped,
            skipped_in_a_row=state.skipped_in_a_row,
            dev_losses=state.dev_losses,
        )
        logger.info("going on from %s", path)
        for metrics in state.pending:
            self._report(metrics)

    def _export(self) -> None:
        weights = self._engine.whole_weights(self._decoder.model)
        if weights is not None:
            card = ModelCard(
                teacher=self._job.teacher,
                licence=self._job.licence,
                view_digest=self._view.digest,
                objective=self._job.stage.objective,
                steps=self._progress.step,
            )
            export_student(self._decoder.model, weights, start=self._job.model_dir, out=self._job.output_dir, card=card)
        self._gang.barrier()

    def _result(self, *, finished: bool) -> TrainResult:
        progress = self._progress
        return TrainResult(
            finished=finished,
            output_dir=self._job.output_dir,
            steps=progress.step,
            tokens=progress.tokens,
            skipped=progress.skipped,
            dev_losses=progress.dev_losses,
        )
