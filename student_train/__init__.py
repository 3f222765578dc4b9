"""Students: where they start, their objectives, and their training under DeepSpeed.

DeepSpeed itself is imported by `student_train.training.deepspeed_engine` alone, when `train_stage` runs.
"""

from student_train.job import StepMetrics, TrainJob, TrainResult
from student_train.losses.divergences import divergence
from student_train.losses.fused import LossSums, fused_cross_entropy, fused_divergence
from student_train.losses.minillm import MinillmLoss, minillm_loss
from student_train.losses.targets import SparseTargets
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
