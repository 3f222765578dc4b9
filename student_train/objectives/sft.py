"""Supervised fine-tuning: cross-entropy on the gold answers of a data set. The teacher is not asked."""

from __future__ import annotations

from configs.objectives import Objective
from student_train.objectives.answers import answer_card, answer_loss

OBJECTIVE = Objective(
    name="sft",
    learns="gold answers",
    source="gold",
    needs="nothing",
    across=True,
    loss=answer_loss,
    card=answer_card,
)
