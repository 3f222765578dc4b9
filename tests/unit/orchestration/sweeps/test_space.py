"""The experiments of a sweep: alike but for their values, and checked before anything is paid for."""

from __future__ import annotations

import pytest
from sweep_builders import LAYERS, RATE, swept

from configs import ConfigError
from orchestration.sweeps.space import fill_config, grid, require_space, trial_config


def test_a_grid_has_every_combination_once_in_an_order_of_the_seed() -> None:
    config = swept()
    assert config.sweep is not None
    found = grid(config.sweep)
    pairs = {(values[RATE], values[LAYERS]) for values in found}
    assert len(found) == len(pairs) == 6
    assert found == grid(config.sweep)
    other = swept(seed=1).sweep
    assert other is not None and grid(other) != found


def test_a_grid_is_cut_short_by_its_number_of_trials() -> None:
    sweep = swept(trials=4).sweep
    assert sweep is not None and len(grid(sweep)) == 4


def test_a_grid_that_nobody_means_is_refused() -> None:
    steps = {"low": 1, "high": 1000, "step": 1}
    sweep = swept({LAYERS: steps, "students.kd.stages.0.steps": steps}).sweep
    assert sweep is not None
    with pytest.raises(ConfigError, match="1,000,000 combinations"):
        grid(sweep)


def test_a_trial_holds_the_varied_student_alone_under_its_values() -> None:
    config = trial_config(swept(), {RATE: 5e-4, LAYERS: 3}, name="small-trial-000")
    assert list(config.students) == ["kd"]
    assert config.students["kd"].stages[0].learning_rate == 5e-4
    assert config.students["kd"].init.keep_layers == 3
    assert config.sweep is None and config.name == "small-trial-000"


def test_who_teaches_the_varied_student_comes_along() -> None:
    config = trial_config(swept({"students.v1.5.stages.0.steps": [5, 6]}), {}, name="small")
    assert list(config.students) == ["seqkd", "v1.5"]


def test_the_fill_holds_the_most_that_a_trial_will_ask_for() -> None:
    assert fill_config(swept({"teacher.top_k": [16, 128, 64]})).teacher.top_k == 128
    assert fill_config(swept({"teacher.top_k": {"low": 8, "high": 32, "step": 8}})).teacher.top_k == 32
    assert fill_config(swept()).teacher.top_k == 64
    assert list(fill_config(swept({"teacher.top_k": [16, 32]})).students) == ["kd", "seqkd", "v1.5"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"students.dk.stages.0.steps": [1, 2]}, "no such student; choose one of kd, seqkd, v1.5"),
        ({"students.kd.stages.1.steps": [1, 2]}, "must be an index from 0 to 0"),
        ({"students.kd.stages.0.stepz": [1, 2]}, "stepz"),
        ({"students.kd.stages.0.steps": [10, -1]}, "-1"),
        ({"students.kd.stages.0.learning_rate": {"low": -1.0, "high": 1.0, "step": 1.0}}, "-1.0"),
    ],
)
def test_a_corner_that_cannot_work_dies_before_the_first_trial(space: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_space(swept(space))


def test_an_experiment_without_a_sweep_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="sweep is not set"):
        require_space(swept().model_copy(update={"sweep": None}))
