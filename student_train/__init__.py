"""Students: where they start, their objectives, and their training under DeepSpeed.

The names below are imported when they are first asked for: a process that needs one module of this package, such as an
engine that receives weights, does not load transformers as well. DeepSpeed is imported by
`student_train.training.deepspeed_engine` alone, when `train_stage` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.later import names_found_later

_MODULES = {
    "Calibration": "starts.calibration",
    "Head": "losses.head",
    "HeldOutRow": "scoring",
    "LossSums": "losses.fused",
    "MinillmLoss": "losses.minillm",
    "SampledResponses": "losses.minillm",
    "SparseTargets": "losses.targets",
    "StepMetrics": "job",
    "TaskJob": "job",
    "TrainJob": "job",
    "TrainResult": "job",
    "angle_relation": "losses.relations",
    "attention_mse": "losses.hidden",
    "calibrate": "starts.calibration",
    "cosine": "losses.hidden",
    "derive_student": "starts.derive",
    "distance_relation": "losses.relations",
    "divergence": "losses.divergences",
    "fused_cross_entropy": "losses.fused",
    "fused_divergence": "losses.fused",
    "fused_loss": "losses.fused",
    "hidden_mse": "losses.hidden",
    "logit_mse": "losses.logits",
    "minillm_loss": "losses.minillm",
    "patient": "losses.hidden",
    "score_view": "scoring",
    "soft_cross_entropy": "losses.logits",
    "train_stage": "training.stages",
}
"""Where each public name is defined."""

if TYPE_CHECKING:
    from student_train.job import StepMetrics, TaskJob, TrainJob, TrainResult
    from student_train.losses.divergences import divergence
    from student_train.losses.fused import LossSums, fused_cross_entropy, fused_divergence, fused_loss
    from student_train.losses.head import Head
    from student_train.losses.hidden import attention_mse, cosine, hidden_mse, patient
    from student_train.losses.logits import logit_mse, soft_cross_entropy
    from student_train.losses.minillm import MinillmLoss, SampledResponses, minillm_loss
    from student_train.losses.relations import angle_relation, distance_relation
    from student_train.losses.targets import SparseTargets
    from student_train.scoring import HeldOutRow, score_view
    from student_train.starts.calibration import Calibration, calibrate
    from student_train.starts.derive import derive_student
    from student_train.training.stages import train_stage
else:
    __getattr__ = names_found_later(__name__, _MODULES)

__all__ = [
    "Calibration",
    "Head",
    "HeldOutRow",
    "LossSums",
    "MinillmLoss",
    "SampledResponses",
    "SparseTargets",
    "StepMetrics",
    "TaskJob",
    "TrainJob",
    "TrainResult",
    "angle_relation",
    "attention_mse",
    "calibrate",
    "cosine",
    "derive_student",
    "distance_relation",
    "divergence",
    "fused_cross_entropy",
    "fused_divergence",
    "fused_loss",
    "hidden_mse",
    "logit_mse",
    "minillm_loss",
    "patient",
    "score_view",
    "soft_cross_entropy",
    "train_stage",
]
