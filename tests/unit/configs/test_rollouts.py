"""Settings of what a student writes itself."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.stages import StageConfig


def test_rollouts_say_how_long_a_stage_is() -> None:
    rollout = {"count": 3, "prompts": 8, "epochs": 2, "minibatches": 4}
    on_policy = StageConfig.model_validate({"objective": "minillm", "rollout": rollout})
    assert on_policy.rollout is not None and on_policy.rollout.steps == 24


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rollout": None}, "name exactly one of steps, epochs and rollout; got steps=None"),
        ({"rollout": None, "steps": 4}, "objective=minillm learns from what the student writes"),
        ({"steps": 4}, "got steps=4, epochs=None, rollout.count=2"),
        ({"rollout": {"count": 2, "alpha": 1.0}}, "less than 1"),
        ({"rollout": {"count": 2, "alpha": -0.1}}, "greater than or equal to 0"),
        ({"rollout": {"count": 2, "prompts": 3}}, "minibatches=4 of prompts=3 sequences"),
        ({"rollout": {"count": 2, "share": 0.5}}, "set share: 1 or objective: kd"),
        ({"rollout": {"count": 2, "ahead": True, "replay_from": "old"}}, "ahead=true has nothing to write"),
        ({"warmup_steps": 8}, "warmup_steps=8 must be less than the 8 steps"),
        ({"objective": "seqkd"}, "objective=seqkd cannot learn from rollouts"),
        ({"source": "gold"}, "source=gold with rollout"),
        ({"filters": {"min_tokens": 2}}, "filters choose among cached sequences"),
        ({"temperature": 2.0}, "temperature=2.0 only acts on objective=kd, not minillm"),
        ({"objective": "kd", "policy": {}}, "policy only acts on objective=minillm, not kd: remove it"),
        ({"policy": {"mode": "lmops", "reward_scale": 2.0}}, "reward_scale=2.0 cannot be set in mode=lmops"),
        ({"policy": {"importance": "token"}, "rollout": {"count": 2, "replay": 1}}, "importance=token weighs by"),
        ({"policy": {"weight_cap": 2.0}}, "weight_cap=2.0 bounds importance weights and importance=clip has none"),
    ],
)
def test_rollouts_that_cannot_be_learned_from_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        StageConfig.model_validate({"objective": "minillm", "rollout": {"count": 2}} | values)
