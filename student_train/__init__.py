"""Students: where they start, their objectives, and their training under DeepSpeed.

DeepSpeed itself is imported by `student_train.deepspeed_engine` alone, when `train_stage` runs.
"""

from student_train.calibration import Calibration, calibrate
from student_train.derive import derive_student
from student_train.divergences import divergence
from student_train.fused import LossSums, fused_cross_entropy, fused_divergence
from student_train.held_out import HeldOutRow, score_view
from student_train.job import StepMetrics, TrainJob, TrainResult
from student_train.minillm import MinillmLoss, minillm_loss
from student_train.targets import SparseTargets
from student_train.trainer import train_stage

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
