"""sft: whose answers it learns."""

from __future__ import annotations

import pytest
from objective_builders import stage
from pydantic import ValidationError

from student_train.objectives.answers import answer_loss
from student_train.objectives.sft import OBJECTIVE


def test_it_learns_gold_answers_and_no_others() -> None:
    assert OBJECTIVE.loss is answer_loss
    settings = stage(objective="sft", source="gold")
    assert OBJECTIVE.card(settings) == "`sft`, cross-entropy on gold answers"
    cure = "set source: gold, or objective: seqkd or kd"
    with pytest.raises(ValidationError, match=f"objective=sft learns from source: gold but source=teacher: {cure}"):
        stage(objective="sft", source="teacher")


def test_it_asks_the_teacher_for_no_log_probabilities() -> None:
    assert OBJECTIVE.needs == "nothing" and not OBJECTIVE.needs_logprobs
