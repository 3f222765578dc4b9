"""The teacher's distribution where the tokens are the same, the likelihood of the text where they are not.

Between two common boundaries lies a chunk of n tokens of the teacher and m of the student. Where both are one token,
the teacher's kept tokens are read under the student's ids and the divergence of the stage is taken, as `kd` does; of
every other chunk it is taken of the probability of its text (`student_train.losses.spans`, after Minixhofer et al.
2025, arXiv 2503.20083). Where both share their tokenizer this is `kd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.divergences import AdaptiveDivergence
from configs.objectives import Objective
from configs.stages import StageConfig
from student_train.objectives.cards import data_learned, in_words
from student_train.objectives.kd import teacher_loss

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from student_train.feed.microbatch import MicroBatch
    from student_train.losses.fused import LossSums
    from student_train.losses.head import Head


def chunk_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """The stage's divergence over chunks + `ce_weight` x cross-entropy on the response tokens."""
    from student_train.losses.fused import LossSums, fused_divergence
    from student_train.losses.metrics import ALIGNED_METRICS, only
    from student_train.losses.spans import span_divergence

    aligned = batch.aligned
    if aligned is None:
        return teacher_loss(hidden, head, batch, stage)
    whole = bool(aligned.exact.all())
    parameters = stage.divergence.model_dump(exclude={"kind"})
    sums = fused_divergence(
        stage.divergence.kind,
        hidden if whole else hidden[aligned.exact],
        head,
        aligned.targets,
        labels=batch.labels if whole else batch.labels[aligned.exact],
        ce_weight=stage.ce_weight,
        **parameters,
    )
    if whole:
        return sums
    others = ~aligned.exact
    spans = span_divergence(
        stage.divergence.kind,
        hidden[others],
        head,
        labels=batch.labels[others],
        spans=aligned.spans[others],
        span_logprobs=aligned.span_logprobs,
        ce_weight=stage.ce_weight,
        **parameters,
    )
    return LossSums(sums.loss + spans.loss, only(ALIGNED_METRICS, sums.metrics + spans.metrics))


def _check(stage: StageConfig) -> None:
    if isinstance(stage.divergence, AdaptiveDivergence):
        raise ValueError(
            "divergence=adaptive_kl takes head and tail of a vocabulary apart, which the likelihood of a text does not "
            "have: set another divergence, or objective: kd"
        )


def _card(stage: StageConfig) -> str:
    settings = stage.divergence.model_dump(exclude={"kind"}) | {"ce_weight": stage.ce_weight}
    return f"`span_likelihood`, {stage.divergence.kind} with {in_words(settings)}, {data_learned(stage)}"


OBJECTIVE = Objective(
    name="span_likelihood",
    learns="the teacher's distribution, and the likelihood of text that is cut differently",
    needs="topk",
    across=True,
    settings=frozenset({"ce_weight", "divergence"}),
    loss=chunk_loss,
    card=_card,
    check=_check,
)
