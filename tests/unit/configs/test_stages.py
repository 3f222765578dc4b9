"""Students in the configuration: what is short for what, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import ConfigError, load_config
from configs.stages import FilterConfig, InitConfig, StageConfig

TINY = Path(__file__).parents[3] / "configs/tiny.yaml"


KD = {"objective": "kd", "steps": 4}


def stage(**values: object) -> StageConfig:
    return StageConfig.model_validate(KD | values)


def test_a_divergence_by_name_is_short_for_one_with_its_defaults() -> None:
    assert stage(divergence="jsd") == stage(divergence={"kind": "jsd", "beta": 0.5})
    assert stage(divergence="skew_kl") == stage(divergence={"kind": "skew_kl", "alpha": 0.1})
    assert stage(divergence="alpha_beta") == stage(divergence={"kind": "alpha_beta", "a": 0.2, "b": 0.7})
    assert stage() == stage(divergence="forward_kl")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"divergence": "hellinger"}, "does not match any of the expected tags"),
        ({"divergence": {"kind": "jsd", "alpha": 0.1}}, "Extra inputs are not permitted"),
        ({"divergence": {"kind": "jsd", "beta": 1.0}}, "less than 1"),
        ({"divergence": {"kind": "alpha_beta", "a": 0.0, "b": 0.5}}, "neither may be 0"),
        ({"divergence": {"kind": "alpha_beta", "a": 0.5, "b": -0.5}}, "nor may their sum"),
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


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("hellinger", "divergence: given 'hellinger'; must be one of 'forward_kl', 'reverse_kl', 'tvd', 'jsd'"),
        ("{kind: jsd, alpha: 0.1}", "divergence.alpha: unknown key; another kind of block takes it, not this one"),
        ("{kind: jsd, beta: 2}", "divergence.beta: given 2; must be less than 1.0"),
        ("{beta: 0.1}", "must be a block that names its kind"),
    ],
)
def test_a_wrong_divergence_is_told_by_its_own_key(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(TINY, overrides=[f"students.kd.stages.0.divergence={value}"])


def test_the_two_kl_limits_of_alpha_beta_are_allowed() -> None:
    for a, b in ((1.0, 0.0), (0.0, 1.0)):
        assert stage(divergence={"kind": "alpha_beta", "a": a, "b": b}).divergence.kind == "alpha_beta"


def test_filtered_sequences_are_a_view_of_their_own() -> None:
    plain, stopped, short = stage(), stage(filters={"finish": "stop"}), stage(filters={"max_tokens": 9})
    assert plain.train_view == "teacher-train"
    assert len({plain.train_view, stopped.train_view, short.train_view}) == 3
    assert stopped.train_view.startswith("teacher-train-")
    assert {plain.dev_view, stopped.dev_view, short.dev_view} == {"teacher-dev"}
    assert stage(filters=FilterConfig()).train_view == "teacher-train"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "name either model"),
        ({"hidden_size": 8, "model": {"path": "somewhere"}}, "name either model"),
        ({"keep_layers": [0, 2], "layers_by": "block_influence"}, "needs keep_layers as a number"),
        ({"mlp_channels": 8, "layers_by": "contiguous"}, "needs keep_layers as a number"),
    ],
)
def test_a_start_is_one_thing(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InitConfig.model_validate(values)


def test_only_activations_make_a_start_wait() -> None:
    assert not InitConfig(keep_layers=4, layers_by="contiguous").calibrated
    assert InitConfig(keep_layers=4, layers_by="block_influence").calibrated
    assert InitConfig(mlp_channels=16).calibrated


def test_answers_that_take_turns_are_another_stage_on_the_same_rows() -> None:
    views = stage(views=3)
    assert views.identity() == stage().identity() | {"views": 3}
    assert views.train_view == stage().train_view
    assert (views.turns, stage().turns) == ("teacher-train-3-views", None)
    rollouts = {"objective": "kd", "rollout": {"count": 1}, "views": 2}
    with pytest.raises(ValidationError, match="views=2 with rollout, where the student writes new answers"):
        StageConfig.model_validate(rollouts)
