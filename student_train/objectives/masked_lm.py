"""Hidden tokens of plain text (BERT, Devlin et al. 2019, arXiv 1810.04805), and what a teacher believes of them.

`lm_weight` x cross-entropy on the tokens that stood there, and `soft_weight` x T^2 KL(teacher ‖ student) over the
vocabulary at the same places; DistilBERT (Sanh et al. 2019, arXiv 1910.01108) has 2 and 5 at T = 2, and a cosine of the
last states at 1 (`features`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.task_objectives import TaskNeed, TaskObjective
from configs.task_stages import TaskStageConfig

if TYPE_CHECKING:
    from jaxtyping import Int64
    from torch import Tensor

    from student_train.losses.fused import LossSums
    from student_train.losses.words import Words


def word_loss(student: Words, teacher: Words | None, labels: Int64[Tensor, " N"], stage: TaskStageConfig) -> LossSums:
    """See the module's docstring; `teacher` may be None where nothing of it is learned."""
    from student_train.losses.words import WordForm, word_sums

    form = WordForm(stage.lm_weight, stage.soft_weight, stage.temperature)
    return word_sums(student, labels, form, teacher=teacher)


def _needs(_: TaskStageConfig) -> TaskNeed:
    return "words"


def _card(stage: TaskStageConfig) -> str:
    soft = f", the teacher's distribution at temperature {stage.temperature:g} at weight {stage.soft_weight:g}"
    return f"`masked_lm`, hidden tokens at weight {stage.lm_weight:g}{soft if stage.soft_weight else ''}"


def _check(stage: TaskStageConfig) -> None:
    if not stage.lm_weight and not stage.soft_weight:
        raise ValueError(
            "lm_weight=0 and soft_weight=0: masked_lm learns nothing; raise one, or set objective: features"
        )
    if stage.temperature != 1.0 and not stage.soft_weight:
        raise ValueError(
            f"temperature={stage.temperature:g} softens what the teacher believes and soft_weight=0: raise it, or "
            "remove temperature"
        )


OBJECTIVE = TaskObjective(
    name="masked_lm",
    learns="hidden tokens of plain text, and what the teacher believes of them",
    needs=_needs,
    settings=frozenset({"temperature", "lm_weight", "soft_weight"}),
    loss=word_loss,
    card=_card,
    general="only",
    check=_check,
)
