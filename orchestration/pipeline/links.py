"""A stage of a student by what addresses it and where it lies, whatever it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from configs.stages import StageConfig
from configs.task_stages import TaskStageConfig
from orchestration.outputs.artifacts import Artifacts


class TrainedLink(Protocol):
    """One stage of one student, by what addresses it and where it lies."""

    @property
    def stage(self) -> StageConfig | TaskStageConfig:
        """What is learned, and how."""
        ...

    @property
    def digest(self) -> str:
        """What the student of this stage is addressed by."""
        ...

    @property
    def made_of(self) -> Mapping[str, object]:
        """What that address is the digest of."""
        ...

    @property
    def start_dir(self) -> Path:
        """What it starts from."""
        ...

    @property
    def output_dir(self) -> Path:
        """Where it appears."""
        ...

    @property
    def work_dir(self) -> Path:
        """Where its checkpoints and its curve lie."""
        ...


def selected_step(link: TrainedLink, *, artifacts: Artifacts) -> int | None:
    """The step of a finished stage that became the student; None where none was chosen or the stage is not finished."""
    summary = artifacts.read_student(link.digest)
    step = None if summary is None else summary.get("selected_step")
    return step if isinstance(step, int) else None


def stage_axis(steps: Sequence[int]) -> list[range]:
    """The steps that each stage of a student has in MLflow, where its stages are one curve after the other.

    A stage begins with what it measures at its step 0, before it learns: that is a point of its own.
    """
    ends = list(accumulate(count + 1 for count in steps))
    return [range(end - count - 1, end) for count, end in zip(steps, ends, strict=True)]
