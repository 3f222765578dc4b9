"""How the weights of a worker group reach the engines that sample from them.

Through files (`FileSync`): the worker group writes a plain model, and engines read it. Through a broadcast
(`BroadcastSync`): the worker group writes an offer, the engines name a place to meet, and the leader sends every tensor
to all of them at once (`student_train.handoff.broadcast`). Such weights last as long as the worker group does; when it
is started again, it offers them again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from student_train.handoff.broadcast import Offer, send
from student_train.handoff.rollouts import RolloutExchange
from student_train.models.export import write_model
from student_train.worker_group import WorkerGroup

logger = logging.getLogger(__name__)


@runtime_checkable
class WeightSync(Protocol):
    """One way for weights to leave the worker group. All calls are the leader's alone."""

    def holds(self, version: int) -> bool:
        """Whether these weights are available already, so that they need not be gathered."""
        ...

    def publish(self, version: int, weights: Mapping[str, Tensor]) -> None:
        """Make these whole weights available."""
        ...

    def attend(self, version: int) -> None:
        """Serve engines that wait for them; called repeatedly while the worker group waits for the next rollout."""
        ...


class FileSync:
    """Weights as a plain transformers directory."""

    def __init__(self, exchange: RolloutExchange, *, model: Any, start: Path) -> None:
        self._exchange, self._model, self._start = exchange, model, start

    def holds(self, version: int) -> bool:
        """See `WeightSync.holds`: an earlier process may have written them."""
        return self._exchange.has_policy(version)

    def publish(self, version: int, weights: Mapping[str, Tensor]) -> None:
        """See `WeightSync.publish`."""
        self._exchange.publish(
            version, write=lambda folder: write_model(self._model, weights, start=self._start, folder=folder)
        )

    def attend(self, version: int) -> None:
        """Nothing to do: files wait by themselves."""


class BroadcastSync:
    """Weights that are sent from the leader's memory."""

    def __init__(self, exchange: RolloutExchange, *, device: torch.device) -> None:
        self._exchange, self._device = exchange, device
        self._version, self._weights = 0, dict[str, Tensor]()
        self._past: set[Path] = set()

    def holds(self, version: int) -> bool:
        """See `WeightSync.holds`: an earlier process took its offer along, but a rollout that is there needs none."""
        return version == self._version or self._exchange.has_rollout(version)

    def publish(self, version: int, weights: Mapping[str, Tensor]) -> None:
        """See `WeightSync.publish`."""
        self._version, self._weights = version, dict(weights)
        self._exchange.publish(version, write=Offer.of(weights).write)

    def attend(self, version: int) -> None:
        """See `WeightSync.attend`. After a meeting that failed, the engines ask for another."""
        if version != self._version:
            return
        for meeting, receivers in self._exchange.meetings(version):
            if meeting in self._past:
                continue
            self._past.add(meeting)
            try:
                send(self._weights, meeting=meeting, size=1 + receivers, device=self._device)
            except (RuntimeError, OSError) as error:
                logger.warning("weights %d could not be sent: %s", version, error)


def weight_sync(group: WorkerGroup, exchange: RolloutExchange, *, kind: str, model: Any, start: Path) -> WeightSync:
    """The way that `runtime.training.weight_sync` names."""
    return (
        BroadcastSync(exchange, device=group.device)
        if kind == "broadcast"
        else FileSync(exchange, model=model, start=start)
    )
