"""seqkd: whose answers it learns."""

from __future__ import annotations

import pytest
from objective_builders import stage
from pydantic import ValidationError

from student_train.objectives.answers import answer_loss
from student_train.objectives.seqkd import OBJECTIVE


def test_it_learns_teacher_answers_and_no_others() -> None:
    assert OBJECTIVE.loss is answer_loss
    settings = stage(objective="seqkd", source="teacher")
    assert OBJECTIVE.card(settings) == "`seqkd`, cross-entropy on teacher answers"
    cure = "set source: teacher, or objective: sft or kd"
    with pytest.raises(ValidationError, match=f"objective=seqkd learns from source: teacher but source=gold: {cure}"):
        stage(objective="seqkd", source="gold")


def test_it_asks_the_teacher_for_no_log_probabilities() -> None:
    assert OBJECTIVE.needs == "text" and not OBJECTIVE.needs_logprobs
