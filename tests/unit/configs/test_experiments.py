from __future__ import annotations

from pathlib import Path

from configs import load_config
from configs.experiments import AnyExperiment
from configs.task_experiment import TaskDistillConfig

TINY = Path(__file__).parents[3] / "configs/tiny.yaml"


def said(experiment: AnyExperiment) -> tuple[object, ...]:
    return experiment.name, experiment.runtime, experiment.budgets, experiment.prices, experiment.digest()


def test_both_kinds_of_experiment_say_what_every_one_says() -> None:
    student = {"start": {"kind": "bag"}, "stages": [{"objective": "hard_labels", "steps": 1}]}
    task = TaskDistillConfig.model_validate(
        {"name": "t", "task": "t.yaml", "teacher": {"model": {"hub": "some/encoder"}}, "students": {"bag": student}}
    )
    assert [said(each)[0] for each in (load_config(TINY), task)] == ["tiny", "t"]
