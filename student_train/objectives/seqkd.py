"""Sequence-level distillation: cross-entropy on what the teacher wrote (Kim and Rush 2016, arXiv 1606.07947)."""

from __future__ import annotations

from configs.objectives import Objective
from student_train.objectives.answers import answer_card, answer_loss

OBJECTIVE = Objective(
    name="seqkd",
    learns="the teacher's answers",
    source="teacher",
    needs="text",
    across=True,
    loss=answer_loss,
    card=answer_card,
)
