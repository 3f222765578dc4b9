"""A small sweep, and lanes that need no process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs import DistillConfig
from orchestration.sweeps.lane import LaneJob
from orchestration.sweeps.trials import Outcome

RATE = "students.kd.stages.0.learning_rate"
LAYERS = "students.kd.init.keep_layers"

EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": {"hub": "some/model"}, "top_k": 64},
    "data": {split: {"hub": "some/data"} for split in ("train", "dev", "test")},
    "students": {
        "kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}]},
        "seqkd": {"init": {"keep_layers": 2}, "stages": [{"objective": "seqkd", "steps": 10}]},
        "v1.5": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}], "teacher": "seqkd"},
    },
}


def swept(space: Mapping[str, Any] | None = None, *, run_root: Path = Path("runs"), **changes: Any) -> DistillConfig:
    """The experiment with a sweep block."""
    block = {"space": space or {RATE: [1e-4, 2e-4, 3e-4], LAYERS: [2, 3]}} | changes
    return DistillConfig.model_validate(EXPERIMENT | {"sweep": block, "runtime": {"run_root": run_root}})


def answer(score: float, *, parameters: int = 100, tokens: int = 0) -> Outcome:
    return Outcome("", {"dev/forward_kl": score}, parameters, 60.0, 2.0, tokens, "runs/somewhere")


class InstantLane:
    """Answers every job at once, by a function of its configuration."""

    def __init__(self, respond: Callable[[LaneJob, DistillConfig], Outcome]) -> None:
        self._respond = respond
        self._answer: Outcome | None = None
        self.jobs: list[LaneJob] = []

    @property
    def busy(self) -> bool:
        return self._answer is not None

    def begin(self, job: LaneJob) -> None:
        self.jobs.append(job)
        self._answer = self._respond(job, DistillConfig.model_validate_json(job.config))

    def answer(self) -> Outcome | None:
        given, self._answer = self._answer, None
        return given

    def close(self) -> None:
        self._answer = None
