"""What a student learns, by name.

Each objective is a pure function from hidden states at the response positions, the head and a micro-batch to summed
losses. `sft` learns gold answers and `seqkd` the teacher's; both are cross-entropy and differ in where the sequences
come from. `kd` learns the teacher's distribution at each position of them. `minillm` learns from what the student wrote
itself, and how likely the teacher found it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor

from configs.errors import ConfigError
from configs.rollouts import PolicyConfig
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.losses.fused import LossSums, fused_cross_entropy, fused_divergence, fused_policy
from student_train.losses.metrics import plain_sums


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What turns hidden states into logits.

    Of the output matrix the first `vocab` rows are tokens that exist; `softcap` bounds the logits by a tanh.
    """

    weight: Float[Tensor, "W H"]
    vocab: int
    softcap: float | None = None


Objective = Callable[[Tensor, Head, MicroBatch, StageConfig], LossSums]


def answer_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """Cross-entropy on the response tokens; what the teacher believed, where the batch has it, is measured beside."""
    return fused_cross_entropy(
        hidden, head.weight, labels=batch.labels, targets=batch.targets, vocab=head.vocab, softcap=head.softcap
    )


def teacher_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """The stage's divergence from the teacher + `ce_weight` x cross-entropy on the response tokens.

    The divergence of softened distributions counts temperature^2 times: its gradient shrinks with 1 / temperature^2,
    and so keeps its size beside the cross-entropy (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    assert batch.targets is not None
    return fused_divergence(
        stage.divergence.kind,
        hidden,
        head.weight,
        batch.targets,
        labels=batch.labels,
        vocab=head.vocab,
        tail=stage.tail,
        temperature=stage.temperature,
        weight=stage.temperature**2,
        ce_weight=stage.ce_weight,
        softcap=head.softcap,
        **stage.divergence.model_dump(exclude={"kind"}),
    )


def plain_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """L_PT: `batch.plain_weight` x cross-entropy on plain text; its metrics stay apart from those of the responses."""
    assert batch.plain_weight is not None
    sums = answer_loss(hidden, head, batch, stage)
    return LossSums(batch.plain_weight * sums.loss, plain_sums(sums.metrics))


def policy_loss(hidden: Float[Tensor, "N H"], head: Head, batch: MicroBatch, stage: StageConfig) -> LossSums:
    """MiniLLM where the student sampled the tokens, with the settings of the stage's `policy`.

    Held-out answers have no policy that they were sampled from: KL(student ‖ teacher) at each of their positions, which
    is the single-step term alone.
    """
    assert batch.targets is not None
    if batch.policy is None:
        return fused_divergence(
            "reverse_kl",
            hidden,
            head.weight,
            batch.targets,
            labels=batch.labels,
            vocab=head.vocab,
            softcap=head.softcap,
        )
    return fused_policy(
        hidden,
        head.weight,
        batch.targets,
        labels=batch.labels,
        terms=batch.policy,
        policy=stage.policy or PolicyConfig(),
        vocab=head.vocab,
        softcap=head.softcap,
    )


OBJECTIVES: MappingProxyType[str, Objective] = MappingProxyType(
    {"sft": answer_loss, "seqkd": answer_loss, "kd": teacher_loss, "minillm": policy_loss}
)
"""Every objective by the name it has in a config."""


def objective(name: str) -> Objective:
    """The function of an objective.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"objective={name} is unknown: choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def needs_targets(name: str) -> bool:
    """Whether an objective reads the teacher's log-probabilities, not its text alone."""
    return objective(name) is not answer_loss
