"""How far a stage has come and what was measured on the way, in memory and in checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.disk.failpoints import failpoint
from student_train.job import StepMetrics
from student_train.training.checkpoint import Checkpoints, CheckpointState, check_resumable
from student_train.training.overfit import Sums, added, cache_overfit
from student_train.training.resuming import restore
from student_train.training.selection import selected
from student_train.training.shares import ShareFile
from student_train.training.worker import StageWorker

BEST = "best.safetensors"
"""The file of a checkpoint with the whole weights of the best step so far, under the names of the trained model."""

MetricsReport = Callable[[StepMetrics], None]


class TrainingState:
    """What one process knows of the training of its stage. All processes know the same and make every call together."""

    def __init__(self, worker: StageWorker, *, data_digest: str, report: MetricsReport) -> None:
        self.step = 0
        self.tokens = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.measured: tuple[StepMetrics, ...] = ()
        self.newest: Path | None = None
        self._learned: Sums = {}
        self._worker, self._job, self._group = worker, worker.job, worker.group
        self._data_digest, self._report = data_digest, report
        self._checkpoints = Checkpoints(worker.job.work_dir, group=worker.group)
        self._pending: tuple[StepMetrics, ...] = ()
        self._saved = True
        self._best: tuple[int, StepMetrics | None] = (-1, None)

    @property
    def best(self) -> StepMetrics | None:
        """The measurement of the step that would be selected now; None when the last step is."""
        # Asked several times a step, of more and more measurements: only a new one can change it.
        number, found = self._best
        if number != len(self.measured):
            stage = self._job.stage
            found = selected(self.measured, select=stage.select, keep_start=stage.keep_start)
            self._best = len(self.measured), found
        return found

    @property
    def selected_step(self) -> int:
        """The step whose weights the student gets if the stage ends here."""
        return self.step if self.best is None else self.best.step

    def advance(self, *, tokens: int, skipped: bool) -> None:
        """Count an optimiser step over `tokens` tokens; `skipped` when its gradient was not finite."""
        self.step += 1
        self.tokens += tokens
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0

    def learn(self, sums: Sequence[float], *, known: Mapping[str, int]) -> None:
        """Count the metric sums of a step, each divided by what `known` says, towards the next measurement."""
        self._learned = added(self._learned, sums, known=known)

    def add_measurement(self, values: dict[str, float]) -> None:
        """Keep and report the held-out metrics of the present step, beside what was learned since those before."""
        values = values | cache_overfit(values, self._learned)
        self._learned = {}
        self.measured += (StepMetrics(self.step, values),)
        self.report(values)

    def report(self, values: dict[str, float]) -> None:
        """Report metrics of the present step; the next checkpoint holds them."""
        metrics = StepMetrics(self.step, values)
        self._pending += (metrics,)
        self._saved = False
        self._report(metrics)

    @property
    def committing(self) -> bool:
        """Whether a checkpoint is still on its way to the disk, as far as this process knows; the leader does."""
        return self._checkpoints.committing

    @property
    def commit_failed(self) -> bool:
        """Whether this process could not write its share of the last checkpoint; `save` and `settle` raise why."""
        return self._checkpoints.failed

    def save(self) -> None:
        """Begin a checkpoint, unless nothing was reported since the newest one; waits for that one to be written.

        Raises:
            TrainingError, OSError: the newest one could not be written.
        """
        if self._saved:
            self.settle()
            return
        state = CheckpointState(
            step=self.step,
            tokens=self.tokens,
            skipped=self.skipped,
            skipped_in_a_row=self.skipped_in_a_row,
            world_size=self._group.world_size,
            zero_stage=self._job.settings.zero_stage,
            view_digest=self._data_digest,
            stage_digest=self._job.stage_digest(),
            measured=self.measured,
            pending=self._pending,
            learned=self._learned,
        )
        self.newest = self._checkpoints.save(state, take=self._take)
        self._saved, self._pending = True, ()

    def settle(self) -> None:
        """Wait until the newest checkpoint is written.

        Raises:
            TrainingError, OSError: it could not be.
        """
        self._checkpoints.settle()

    def close(self) -> None:
        """Leave no thread behind. Without `settle` before, a checkpoint that is on its way may be given up."""
        self._checkpoints.abandon()

    def resume(self) -> None:
        """Resume from the newest sound checkpoint, if there is one, and report its pending metrics again.

        Raises:
            ConfigError: it belongs to other data, another stage or another ZeRO stage.
        """
        self._checkpoints.clean()
        found = self._checkpoints.newest()
        if found is None:
            return
        path, state = found
        check_resumable(state, path=path, view_digest=self._data_digest, stage_digest=self._job.stage_digest())
        restore(self._worker, path=path, state=state, checkpoints=self._checkpoints)
        self.step, self.tokens = state.step, state.tokens
        self.skipped, self.skipped_in_a_row = state.skipped, state.skipped_in_a_row
        # They stay pending: a checkpoint of the same step would replace this one, and has to hold them too.
        self.measured, self._pending = state.measured, state.pending
        self._learned = state.learned
        self.newest = path
        for metrics in state.pending:
            self._report(metrics)

    def selected_weights(self) -> dict[str, Tensor] | None:
        """The weights of the selected step, whole, on the leader; None elsewhere. To be called after `settle`."""
        if self.best is None:
            return self._worker.whole_weights()
        if not self._group.leads:
            return None
        assert self.newest is not None
        weights: dict[str, Tensor] = load_file(self.newest / BEST)
        return weights

    def _take(self, folder: Path) -> Iterator[ShareFile]:
        """This process's share of a checkpoint; the leader adds the best weights."""
        yield from self._worker.engine.save(folder)
        best = self.best
        if best is not None and best.step == self.step:
            weights = self._worker.whole_weights()
            if weights is not None:
                yield ShareFile(folder / BEST, lambda path: _write_best(path, weights))
        elif best is not None and self._group.leads:
            # It stays until this checkpoint has its place.
            former = self.newest
            assert former is not None
            yield ShareFile(folder / BEST, lambda path: _copy_best(path, former / BEST))


def _write_best(path: Path, weights: dict[str, Tensor]) -> None:
    failpoint("checkpoint-before-best")
    save_file(weights, path)


def _copy_best(path: Path, former: Path) -> None:
    failpoint("checkpoint-before-best")
    # A copy and not a link: damage to one file must not reach both checkpoints.
    shutil.copyfile(former, path)
