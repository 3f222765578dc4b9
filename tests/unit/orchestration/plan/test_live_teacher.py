"""A teacher beside a language model, in the plan: what can be matched, and the memory of both."""

from __future__ import annotations

from typing import Any

import pytest
from plan_builders import NODE, PARAMETERS, SHAPE, experiment, place, planned, sizes

from configs import ConfigError
from configs.schema import DistillConfig
from configs.stages import StageConfig
from orchestration.plan.hardware import Hardware
from orchestration.plan.live_teacher import live_memory, longest_sequence, require_matching

LIVE = ("live teacher", "its states", "attention", "distributions")
MICRO = {"micro_batch_tokens": 1000}
NARROW = SHAPE.model_copy(update={"hidden": 32, "layers": 2, "heads": 4})


def stage(**settings: Any) -> dict[str, Any]:
    return {"objective": "kd", "steps": 10, "dtype": "float32"} | settings


def beside(*features: dict[str, Any], **settings: Any) -> dict[str, float]:
    """What lies beside a student of half the size, by name."""
    placement = place(NODE, student=NARROW, stages=[stage(features=list(features), **settings)], training=MICRO)
    (worker,) = [fit for fit in placement.fits if fit.label == "training worker, kd"]
    return {name: size for name, size in sizes(worker).items() if name in LIVE}


def test_a_stage_from_the_cache_has_nobody_beside_it() -> None:
    assert beside() == {}


def test_weights_and_last_states_lie_beside_a_stage_that_asks_afresh() -> None:
    found = beside(teacher="live")
    assert found.keys() == {"live teacher", "its states", "distributions"}
    assert found["distributions"] == 2**30
    # The experiment's teacher is in bfloat16: 64 last states, and one layer's activations.
    assert found["live teacher"] == 2 * PARAMETERS
    layer = 2 * (8 * 64 + 2 * (8 + 2 * 2) * 8 + 4 * 128) + 8 * 64
    assert found["its states"] == 1000 * (2 * 64 + layer)


def test_states_of_all_layers_and_scores_are_counted_where_they_are_compared() -> None:
    layer = 2 * (8 * 64 + 2 * (8 + 2 * 2) * 8 + 4 * 128) + 8 * 64
    found = beside({"kind": "hidden_mse"}, {"kind": "attention_mse", "heads": "mean"})
    assert found["its states"] == 1000 * (2 * 5 * 64 + layer)
    # Teacher: 4 layers of 8 heads in bfloat16; student: 2 of 4 in float32, twice. 512 tokens are the longest sequence.
    assert found["attention"] == 1000 * 512 * (2 * 4 * 8 + 2 * 4 * 2 * 4)


def test_a_machine_without_gpus_holds_it_in_every_worker() -> None:
    def training(**settings: Any) -> float:
        placement = place(Hardware("cpu", cpus=8), stages=[stage(**settings)], training=MICRO | {"workers": 2})
        (phase,) = [each for each in placement.phases if each.label == "training of kd"]
        return phase.total_bytes

    assert training(teacher="live") - training() > 2 * 2 * PARAMETERS


def test_the_longest_sequence_is_a_window_where_plain_text_is_learned() -> None:
    blocks = experiment().model_dump()
    blocks["data"]["plain"] = {"train": {"path": "a.jsonl"}, "dev": {"path": "b.jsonl"}, "max_tokens": 99}
    config = DistillConfig.model_validate(blocks)
    assert longest_sequence(config, StageConfig.model_validate(stage(source="plain"))) == 99
    assert longest_sequence(config, StageConfig.model_validate(stage())) == 512


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([{"kind": "hidden_mse"}, {"kind": "cosine"}], r"features\.1: cosine compares states of one width"),
        ([{"kind": "attention_mse"}], r"features\.0: attention_mse compares heads one by one"),
        ([{"kind": "hidden_mse", "layers": [[1, 9]]}], r"features\.0: layers matches layer 1 .* with layer 9"),
    ],
)
def test_what_cannot_be_matched_is_refused_by_sizes_alone(features: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^students\.kd\.stages\.0\.{words}"):
        place(NODE, student=NARROW, stages=[stage(features=features)])
    # A student whose model is not at hand is matched when it is.
    assert place(NODE, student=None, stages=[stage(features=features)]).fits


def test_an_assistant_is_the_teacher_of_those_below_it() -> None:
    blocks = experiment(stages=[stage()]).model_dump()
    small = {
        "init": {"keep_layers": 1},
        "teacher": "kd",
        "stages": [stage(teacher="live", features=[{"kind": "cosine"}])],
    }
    blocks["students"]["small"] = small
    config = DistillConfig.model_validate(blocks)
    shapes = {"kd": planned(NARROW), "small": planned(NARROW)}
    require_matching(config, teacher=planned(), students=shapes)
    with pytest.raises(ConfigError, match=r"students\.small\.stages\.0\.features\.0: cosine"):
        require_matching(config, teacher=planned(), students=shapes | {"kd": planned()})
    require_matching(config, teacher=planned(), students={"kd": None, "small": planned(NARROW)})


def test_nobody_knows_the_memory_of_a_teacher_without_sizes() -> None:
    live = StageConfig.model_validate(stage(teacher="live"))
    settings = experiment().runtime.training
    assert live_memory(None, student=SHAPE, stage=live, settings=settings, dtype="float32", longest=9) == ()
