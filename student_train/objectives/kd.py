"""Token-level distillation: a divergence from the teacher's distribution at each token of an answer.

Which divergence, and what becomes of the tail that the cache does not know, the stage says
(`student_train.losses.divergences`). The answers may be the teacher's, gold, or what the student writes meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.objectives import Objective
from configs.stages import StageConfig
from student_train.objectives.cards import data_learned, in_words

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.microbatch import MicroBatch
    from student_train.losses.fused import LossSums
    from student_train.losses.head import Head


def teacher_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """The stage's divergence from the teacher + `ce_weight` x cross-entropy on the response tokens.

    The divergence of softened distributions counts temperature^2 times: its gradient shrinks with 1 / temperature^2,
    and so keeps its size beside the cross-entropy (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    from student_train.losses.fused import fused_divergence

    targets = batch.targets if batch.live is None else batch.live
    assert targets is not None
    return fused_divergence(
        stage.divergence.kind,
        hidden,
        head,
        targets,
        labels=batch.labels,
        tail=stage.tail,
        temperature=stage.temperature,
        weight=stage.temperature**2,
        ce_weight=stage.ce_weight,
        **stage.divergence.model_dump(exclude={"kind"}),
    )


def _card(stage: StageConfig) -> str:
    settings = stage.divergence.model_dump(exclude={"kind"}) | {
        "tail": stage.tail,
        "temperature": stage.temperature,
        "ce_weight": stage.ce_weight,
    }
    asked = ", from the teacher's own logits in every step" if stage.teacher == "live" else ""
    return f"`kd`, {stage.divergence.kind} with {in_words(settings)}, {data_learned(stage)}{asked}"


OBJECTIVE = Objective(
    name="kd",
    learns="the teacher's distribution at each token of an answer",
    needs="topk",
    on_policy="optional",
    settings=frozenset({"ce_weight", "temperature", "tail", "divergence"}),
    live=True,
    loss=teacher_loss,
    card=_card,
)
