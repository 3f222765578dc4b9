"""Worker groups that outlive their stage: starting one costs more than many a stage.

Stages come one after the other or from several threads at once. A stage gets a group that waits, or a new one; no two
have the same group at a time. Whoever needs the places of groups that only wait asks for `room`.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from orchestration.cluster.worker_group import GroupShape, WorkerGroup, train_in_group
from student_train.job import StageJob, StepMetrics

logger = logging.getLogger(__name__)

POLL_S = 0.5


class WarmGroups:
    """The worker groups of a run. Every method may be called from any thread.

    `meetings` is a directory of this run alone, which every node sees; workers find each other there.
    """

    def __init__(self, meetings: Path) -> None:
        self._meetings = meetings
        self._idle: list[WorkerGroup] = []
        self._busy: list[WorkerGroup] = []
        self._wanted = 0
        self._changed = threading.Condition()

    def train(
        self,
        job: StageJob,
        *,
        shape: GroupShape,
        log_dir: Path,
        on_step: Callable[[StepMetrics], None],
        meanwhile: Callable[[], None],
        started: Callable[[float, float], None] = lambda began, ended: None,
    ) -> dict[str, object]:
        """Train a stage in a group of this shape, see `train_in_group`; waits while others take up the cluster.

        `started` is told when a new group began to start and when it was there, in seconds since 1970.

        Raises:
            TrainingError: a worker failed; the checkpoint of the last save remains.
        """
        with self._leased(shape) as group:
            try:
                return train_in_group(job, group=group, log_dir=log_dir, on_step=on_step, meanwhile=meanwhile)
            finally:
                if group.started is not None:
                    started(*group.started)
                group.started = None

    @contextmanager
    def room(self) -> Iterator[None]:
        """End the groups that wait, and keep none waiting as long as this lasts.

        For whoever is about to take their places: Ray gives none to the next before they are free in its books.
        """
        with self._changed:
            self._wanted += 1
            self._end_idle()
        try:
            yield
        finally:
            with self._changed:
                self._wanted -= 1

    def close(self) -> None:
        """End all groups."""
        with self._changed:
            self._end_idle()
            for group in self._busy:
                group.end()

    @contextmanager
    def _leased(self, shape: GroupShape) -> Iterator[WorkerGroup]:
        group = self._take(shape)
        useful = False
        try:
            yield group
            useful = True
        finally:
            # After a failure nobody knows what state the others are in.
            self._give_back(group, useful=useful)

    def _take(self, shape: GroupShape) -> WorkerGroup:
        with self._changed:
            while (group := self._living(shape) or self._new(shape)) is None:
                self._changed.wait(POLL_S)
            self._busy.append(group)
            return group

    def _give_back(self, group: WorkerGroup, *, useful: bool) -> None:
        with self._changed:
            self._busy.remove(group)
            if useful and not self._wanted:
                self._idle.append(group)
            else:
                group.end()
            self._changed.notify_all()

    def _living(self, shape: GroupShape) -> WorkerGroup | None:
        """A group of this shape that waits for a stage."""
        for group in [each for each in self._idle if each.shape == shape]:
            self._idle.remove(group)
            if group.answers():
                return group
            logger.warning("a worker that waited for a stage is gone: its group is started anew")
            group.end()
        return None

    def _new(self, shape: GroupShape) -> WorkerGroup | None:
        """A group that is still to start; None as long as others take up the cluster."""
        # None of those that wait has this shape.
        self._end_idle()
        if not self._fits(shape):
            return None
        if not self._busy:
            # Left by a run that was killed.
            shutil.rmtree(self._meetings, ignore_errors=True)
        return WorkerGroup(shape, meeting=self._meetings / secrets.token_hex(8))

    def _fits(self, shape: GroupShape) -> bool:
        """Whether the cluster has room beside the groups at work. A group alone is for Ray to place."""
        if not self._busy:
            return True
        left = ray.cluster_resources()
        for group in self._busy:
            for name, amount in group.shape.bundle.items():
                left[name] = left.get(name, 0.0) - amount * group.shape.workers
        return all(left.get(name, 0.0) >= amount * shape.workers for name, amount in shape.bundle.items())

    def _end_idle(self) -> None:
        for group in self._idle:
            group.end()
        self._idle.clear()
