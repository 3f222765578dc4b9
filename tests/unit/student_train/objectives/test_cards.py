"""Words of model cards."""

from __future__ import annotations

from objective_builders import stage

from student_train.objectives.cards import data_learned, in_words


def test_answers_are_told_by_their_source() -> None:
    assert data_learned(stage(source="gold")) == "on gold answers"
    assert data_learned(stage()) == "on teacher answers"


def test_rollouts_are_told_by_their_size_and_who_wrote_them() -> None:
    rollout = {"count": 3, "prompts": 8, "epochs": 2, "alpha": 0.0, "share": 0.5}
    assert data_learned(stage(steps=None, rollout=rollout)) == (
        "on 3 rollouts of 8 sequences by the student, a share of 0.5 by the teacher, tokens mixed with the teacher's at "
        "alpha 0, 2 passes over each"
    )


def test_settings_are_listed_by_name() -> None:
    assert in_words({"a": 0.3, "mode": "paper"}) == "a 0.3, mode paper"
