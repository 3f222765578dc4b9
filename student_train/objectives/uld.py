"""Universal logit distillation: probabilities compared by rank, whatever their tokens are called.

Boizard et al. 2024, arXiv 2402.12030 (`student_train.losses.ranks`). It is learned wherever teacher and student go on
from the same text: at every token where they share their tokenizer, at the common boundaries where they do not. The
published loss is cross-entropy + 1.5 x this; with `ce_weight: 0.667` the two stand in that proportion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.errors import ConfigError
from configs.objectives import Objective
from configs.stages import StageConfig
from student_train.objectives.cards import data_learned, in_words

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.microbatch import MicroBatch
    from student_train.losses.fused import LossSums
    from student_train.losses.head import Head


def rank_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """The distance of sorted probabilities + `ce_weight` x cross-entropy on the response tokens.

    Raises:
        ConfigError: the teacher's beliefs were drawn, and draws have no ranks.
    """
    import torch

    from student_train.losses.fused import LossSums, fused_cross_entropy
    from student_train.losses.metrics import replaced
    from student_train.losses.ranks import ranked_distance

    aligned = batch.aligned
    targets = batch.targets if aligned is None else aligned.ranked
    assert targets is not None
    if targets.counts is not None:
        raise ConfigError("objective=uld compares probabilities, not draws: score the sequences, or choose kd")
    with torch.set_grad_enabled(torch.is_grad_enabled() and stage.ce_weight > 0.0):
        answers = fused_cross_entropy(hidden, head, labels=batch.labels, targets=batch.targets)
    apart = ranked_distance(hidden if aligned is None else hidden[aligned.begins], head, targets)
    loss = apart.loss + stage.ce_weight * answers.loss if stage.ce_weight else apart.loss
    return LossSums(loss, replaced(answers.metrics, loss=loss, divergence=apart.loss))


def _card(stage: StageConfig) -> str:
    return f"`uld`, probabilities by rank with {in_words({'ce_weight': stage.ce_weight})}, {data_learned(stage)}"


OBJECTIVE = Objective(
    name="uld",
    learns="the teacher's probabilities by rank, across tokenizers too",
    needs="topk",
    across=True,
    settings=frozenset({"ce_weight"}),
    loss=rank_loss,
    card=_card,
)
