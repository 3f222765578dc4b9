"""Cross-entropy on the tokens of an answer: what `sft` and `seqkd` have in common, and the loss on plain text.

The two differ in who wrote the answers, and in nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.stages import StageConfig
from student_train.objectives.cards import data_learned

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.microbatch import MicroBatch
    from student_train.losses.fused import LossSums
    from student_train.losses.head import Head


def answer_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """Cross-entropy on the response tokens; what the teacher believed, where the batch has it, is measured beside."""
    from student_train.losses.fused import fused_cross_entropy

    return fused_cross_entropy(hidden, head, labels=batch.labels, targets=batch.targets)


def plain_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """L_PT: `batch.plain_weight` x cross-entropy on plain text; its metrics stay apart from those of the responses."""
    from student_train.losses.fused import LossSums
    from student_train.losses.metrics import plain_sums

    assert batch.plain_weight is not None
    sums = answer_loss(hidden, head, batch, stage)
    return LossSums(batch.plain_weight * sums.loss, plain_sums(sums.metrics))


def answer_card(stage: StageConfig) -> str:
    """The objective and whose answers they were."""
    return f"`{stage.objective}`, cross-entropy {data_learned(stage)}"
