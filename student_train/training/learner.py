"""The seam between the loop of a stage and what is learned in it.

The loop (`student_train.training.trainer`) counts steps, measures, saves, resumes and stops in the same way whatever a
student learns. A learner is the rest: which module is trained, what every step works on, how the held-out split is
measured, what is exported at the end. There is one for sequences (`student_train.training.sequences`) and
one for tasks (`student_train.training.tasks`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

from student_train.job import StageJob, StepMetrics
from student_train.training.state import TrainingState
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup

if TYPE_CHECKING:
    from student_train.training.deepspeed_engine import Batch


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step's work for this process.

    `batches` has the same length on each process. `places` is what the summed loss is divided by and `tokens` what is
    read, both over all processes; `padding_share` is the share of what the model computes that is padding. `known` says
    of each of `student_train.losses.metrics.METRICS` that means something here what its sum is divided by. `rows`
    names what is read for the log, and `rows_are` says what that is. `metrics` (by their tracking names) became known
    with this step.
    """

    batches: Sequence[Batch]
    places: int
    tokens: int
    padding_share: float
    known: Mapping[str, int]
    rows: Sequence[str]
    rows_are: str = "records"
    metrics: Mapping[str, float] = field(default_factory=dict)


class Learner(ABC):
    """What a student learns in a stage, in one process. All processes of the group make every call together.

    `module` is what the engine trains: it turns a micro-batch into a summed
    loss and metric sums. `model` holds the weights, under the names that they have in checkpoints. `data_digest` is of
    everything that is learned from; `measures` says whether there is a held-out split, and `from_teacher` whether what
    is learned is what a teacher said of rows that come again (`student_train.training.overfit`).
    """

    module: nn.Module
    model: nn.Module
    total_steps: int
    data_digest: str
    measures: bool
    from_teacher: bool

    @abstractmethod
    def __init__(self, job: StageJob, *, group: WorkerGroup) -> None:
        """Get ready for a stage; new weights are drawn from torch's generator.

        Raises:
            DistillError: stage, data and student do not go together.
        """

    @abstractmethod
    def steps(self, worker: StageWorker, *, first: int) -> Iterator[Step | None]:
        """The work of step number `first` and of those after it; None where a request to stop came first."""

    @abstractmethod
    def measure(self, worker: StageWorker) -> dict[str, float] | None:
        """The means over the held-out split by their tracking names; None when a request to stop came first."""

    @abstractmethod
    def ended_early(self, measured: Sequence[StepMetrics]) -> bool:
        """Whether the stage ends here, before its last step, with these held-out metrics so far."""

    @abstractmethod
    def export(self, weights: Mapping[str, Tensor], *, state: TrainingState) -> None:
        """Write the student with its model card; on the leader alone. `weights` are plain, adapters merged."""
