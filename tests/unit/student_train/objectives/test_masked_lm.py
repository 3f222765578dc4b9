"""masked_lm: what of a stage acts on it, and what its card says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from configs.task_stages import TaskStageConfig
from student_train.losses.words import WordForm, Words, word_sums
from student_train.objectives.masked_lm import OBJECTIVE


def stage(**values: Any) -> TaskStageConfig:
    return TaskStageConfig.model_validate({"objective": "masked_lm", "data": ["plain"], "steps": 3, **values})


def words(seed: int) -> Words:
    draw = torch.Generator().manual_seed(seed)
    return Words(torch.randn(4, 3, generator=draw), torch.randn(6, 3, generator=draw), None, 6)


def test_its_loss_is_that_of_the_settings() -> None:
    labels = torch.tensor([0, 5, 2, 1])
    found = OBJECTIVE.loss(words(0), words(1), labels, stage(lm_weight=2.0, soft_weight=5.0, temperature=2.0))
    assert found.loss.item() == word_sums(words(0), labels, WordForm(2.0, 5.0, 2.0), teacher=words(1)).loss.item()
    alone = OBJECTIVE.loss(words(0), None, labels, stage())
    assert alone.loss.item() == word_sums(words(0), labels, WordForm(1.0, 0.0, 1.0)).loss.item()


def test_it_reads_a_teacher_where_something_of_it_is_learned() -> None:
    assert OBJECTIVE.needs(stage()) == "words" and not stage().is_taught
    assert stage(soft_weight=1.0).is_taught and stage(features=[{"kind": "cosine"}]).reads_inside
    assert not stage(soft_weight=1.0).needs_answers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lm_weight": 0.0}, "lm_weight=0 and soft_weight=0: masked_lm learns nothing"),
        ({"temperature": 2.0}, "temperature=2 softens what the teacher believes and soft_weight=0"),
        ({"gold_weight": 0.5}, "gold_weight=0.5 only acts on objective=soft_labels, not masked_lm"),
    ],
)
def test_settings_that_say_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(**values)


def test_its_card_says_what_was_learned() -> None:
    assert OBJECTIVE.card(stage(lm_weight=2.0)) == "`masked_lm`, hidden tokens at weight 2"
    assert OBJECTIVE.card(stage(soft_weight=5.0, temperature=2.0)) == (
        "`masked_lm`, hidden tokens at weight 1, the teacher's distribution at temperature 2 at weight 5"
    )
