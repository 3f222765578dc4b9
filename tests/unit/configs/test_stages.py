"""Stages of students in the configuration: what they say of themselves, and what is refused with which words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.stages import FilterConfig, StageConfig

KD = {"objective": "kd", "steps": 4}


def stage(**values: object) -> StageConfig:
    return StageConfig.model_validate(KD | values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"select": "test_loss"}, "select=test_loss: a checkpoint chosen on the test split"),
        ({"select": "best"}, "Input should be"),
        ({"select": "last", "keep_start": True}, "keep_start=true needs a measure to compare the start by"),
        ({"objective": "seqkd", "temperature": 2.0}, r"temperature=2.0 only acts on objective=kd, not seqkd"),
        ({"objective": "seqkd", "divergence": "tvd"}, r"divergence=tvd only acts on objective=kd"),
        ({"objective": "seqkd", "tail": "renormalize"}, r"tail=renormalize only acts on objective=kd"),
        ({"filters": {"min_tokens": 9, "max_tokens": 8}}, "min_tokens=9 is more than max_tokens=8"),
        ({"source": "plain", "filters": {"max_tokens": 8}}, "filters choose among answers and source=plain has none"),
        (
            {"objective": "seqkd", "source": "plain"},
            "learns from source: teacher but source=plain.*objective: sft or kd",
        ),
        ({"objective": "seqkd", "teacher": "live"}, "teacher=live only acts on objective=kd, not seqkd"),
        ({"teacher": "live", "tail": "renormalize"}, "tail=renormalize with teacher=live, whose distribution is whole"),
        ({"objective": "sft", "source": "gold", "views": 2}, "views=2 reads one of several answers.*source=gold has"),
        ({"views": 0}, "greater than 0"),
        ({"features": [{"kind": "patient"}]}, "features.0: kind=patient with place=first is about one place of a text"),
        ({"features": [{"kind": "cosine", "place": "mean"}]}, "kind=cosine with place=mean is about one place"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        stage(**values)


@pytest.mark.parametrize(
    ("value", "said"), [({"teacher": "live"}, "teacher=live"), ({"features": [{"kind": "cosine"}]}, "features")]
)
def test_nobody_reads_beside_a_student_that_writes(value: dict[str, object], said: str) -> None:
    rollouts = {"objective": "kd", "rollout": {"count": 1}} | value
    with pytest.raises(ValidationError, match=f"{said} with rollout, where engines of the teacher score"):
        StageConfig.model_validate(rollouts)


def test_the_weights_of_the_terms_are_any() -> None:
    """DistilBERT's 5 x divergence + 2 x language-model loss + 1 x cosine, and one that is mostly text."""
    stage(temperature=2.0, ce_weight=0.4, features=[{"kind": "cosine", "weight": 0.2}])
    assert stage(ce_weight=3.0).ce_weight == 3.0
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        stage(ce_weight=-0.1)


def test_a_stage_says_whether_the_teacher_reads_beside_it() -> None:
    cosine = {"features": [{"kind": "cosine"}]}
    assert (stage().reads_live, stage().needs_cached) == (False, True)
    assert (stage(teacher="live").reads_live, stage(teacher="live").needs_cached) == (True, False)
    assert (stage(**cosine).reads_live, stage(**cosine).needs_cached) == (True, True)
    assert (stage(**cosine).reads_attention, stage(features=[{"kind": "attention_mse"}]).reads_attention) == (
        False,
        True,
    )
    assert StageConfig.model_validate({"objective": "sft", "source": "plain", "steps": 1}).train_view == "plain-train"


def test_stages_from_before_are_written_as_they_were() -> None:
    for said in (stage().model_dump(mode="json"), stage().identity()):
        assert not {"teacher", "features", "views"} & set(said)
    live = stage(teacher="live", features=[{"kind": "cosine"}])
    assert live.identity() == stage().identity() | {
        "teacher": "live",
        "features": [{"kind": "cosine", "weight": 1.0, "layers": None, "place": None, "heads": "each"}],
    }
    assert StageConfig.model_validate_json(live.model_dump_json()) == live


def test_a_student_is_known_by_what_changes_it() -> None:
    plain = stage().identity()
    assert "keep_start" not in plain  # students from before it was there keep their names
    assert stage(keep_start=True).identity() == plain | {"keep_start": True}
    assert stage(seed=1).identity() != plain
    moved = [
        StageConfig.model_validate({"objective": "kd", "rollout": {"count": 3, "replay_from": f"runs/{where}"}})
        for where in ("here", "there")
    ]
    assert moved[0].identity() == moved[1].identity()


def test_filtered_sequences_are_a_view_of_their_own() -> None:
    plain, stopped, short = stage(), stage(filters={"finish": "stop"}), stage(filters={"max_tokens": 9})
    assert plain.train_view == "teacher-train"
    assert len({plain.train_view, stopped.train_view, short.train_view}) == 3
    assert stopped.train_view.startswith("teacher-train-")
    assert {plain.dev_view, stopped.dev_view, short.dev_view} == {"teacher-dev"}
    assert stage(filters=FilterConfig()).train_view == "teacher-train"


def test_answers_that_take_turns_are_another_stage_on_the_same_rows() -> None:
    views = stage(views=3)
    assert views.identity() == stage().identity() | {"views": 3}
    assert views.train_view == stage().train_view
    assert (views.turns, stage().turns) == ("teacher-train-3-views", None)
    rollouts = {"objective": "kd", "rollout": {"count": 1}, "views": 2}
    with pytest.raises(ValidationError, match="views=2 with rollout, where the student writes new answers"):
        StageConfig.model_validate(rollouts)
