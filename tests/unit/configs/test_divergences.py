"""Divergences in the configuration: what is short for what, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import ConfigError, load_config
from configs.stages import StageConfig

TINY = Path(__file__).parents[3] / "configs/tiny.yaml"


def stage(divergence: object = "forward_kl") -> StageConfig:
    return StageConfig.model_validate({"objective": "kd", "steps": 4, "divergence": divergence})


def test_a_divergence_by_name_is_short_for_one_with_its_defaults() -> None:
    assert stage("jsd") == stage({"kind": "jsd", "beta": 0.5})
    assert stage("skew_kl") == stage({"kind": "skew_kl", "alpha": 0.1})
    assert stage("alpha_beta") == stage({"kind": "alpha_beta", "a": 0.2, "b": 0.7})
    assert stage() == stage("forward_kl")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("hellinger", "does not match any of the expected tags"),
        ({"kind": "jsd", "alpha": 0.1}, "Extra inputs are not permitted"),
        ({"kind": "jsd", "beta": 1.0}, "less than 1"),
        ({"kind": "alpha_beta", "a": 0.0, "b": 0.5}, "neither may be 0"),
        ({"kind": "alpha_beta", "a": 0.5, "b": -0.5}, "nor may their sum"),
    ],
)
def test_what_is_no_divergence_is_refused(value: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        stage(value)


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
        assert stage({"kind": "alpha_beta", "a": a, "b": b}).divergence.kind == "alpha_beta"
