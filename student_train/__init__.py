"""Students: where they start, their objectives, and their training under DeepSpeed.

DeepSpeed itself is imported by `student_train.training.deepspeed_engine` alone, when `train_stage` runs. What reads the
cache is loaded when it is first asked for: the losses alone need torch and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from student_train.losses.divergences import divergence
from student_train.losses.fused import LossSums, fused_cross_entropy, fused_divergence
from student_train.losses.minillm import MinillmLoss, minillm_loss
from student_train.losses.targets import SparseTargets

if TYPE_CHECKING:
    from student_train.job import StepMetrics, TrainJob, TrainResult
    from student_train.scoring import HeldOutRow, score_view
    from student_train.starts.calibration import Calibration, calibrate
    from student_train.starts.derive import derive_student
    from student_train.training.trainer import train_stage

__all__ = [
    "Calibration",
    "HeldOutRow",
    "LossSums",
    "MinillmLoss",
    "SparseTargets",
    "StepMetrics",
    "TrainJob",
    "TrainResult",
    "calibrate",
    "derive_student",
    "divergence",
    "fused_cross_entropy",
    "fused_divergence",
    "minillm_loss",
    "score_view",
    "train_stage",
]

_LATER = {
    "StepMetrics": "student_train.job",
    "TrainJob": "student_train.job",
    "TrainResult": "student_train.job",
    "HeldOutRow": "student_train.scoring",
    "score_view": "student_train.scoring",
    "Calibration": "student_train.starts.calibration",
    "calibrate": "student_train.starts.calibration",
    "derive_student": "student_train.starts.derive",
    "train_stage": "student_train.training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
