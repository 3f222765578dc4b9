"""Which task experiments fit their machines, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_pipeline_builders import STAGE, task_place

from configs import ConfigError
from configs.architecture import TextModel
from configs.task_experiment import TaskDistillConfig
from orchestration.plan.hardware import Hardware, HostMemory
from orchestration.plan.host_memory import FILL, check_host
from orchestration.plan.placement import Placement
from orchestration.plan.task_placement import own_models, plan_task_placement

LARGE = TextModel(layers=24, hidden=4096, mlp=16384, positions=512, labels=("good", "bad"), heads=32, vocab=50_000)
CPUS = Hardware("cpu", cpus=8, memory=HostMemory(total_gib=64.0, free_gib=60.0))
GPUS = Hardware("gpu", nodes=1, gpus_per_node=2, gpu_memory_gib=24.0)
PREPARE = {"objective": "hard_labels", "epochs": 1.0}


@pytest.fixture()
def values(tmp_path: Path) -> dict[str, Any]:
    return task_place(tmp_path).values


def placed(values: dict[str, Any], *, hardware: Hardware = CPUS, **runtime: Any) -> Placement:
    config = TaskDistillConfig.model_validate(values | {"runtime": values["runtime"] | runtime})
    return plan_task_placement(config, teacher=LARGE, models={}, hardware=hardware)


def test_every_phase_of_a_machine_is_planned(values: dict[str, Any]) -> None:
    values["teacher"] |= {"prepare": [PREPARE]}
    placement = placed(values)
    assert [part.kind for part in placement.parts] == ["teacher engine", "training worker"]
    assert [phase.label for phase in placement.phases] == [FILL, "training of teacher", "training of bag"]
    fill, tuning, bag = (phase.total_bytes for phase in placement.phases)
    assert tuning > fill > bag


def test_a_tuning_that_no_machine_holds_is_refused_with_its_terms(values: dict[str, Any]) -> None:
    values["teacher"] |= {"prepare": [PREPARE]}
    with pytest.raises(ConfigError, match=r"training of teacher needs .* GiB of memory on one machine but .*lower"):
        check_host(placed(values).phases, memory=CPUS.memory, asks_teacher=True)


def test_students_learn_from_a_full_cache_where_the_teacher_has_no_room(values: dict[str, Any]) -> None:
    small = HostMemory(total_gib=32.0, free_gib=30.0)
    phases = placed(values).phases
    with pytest.raises(ConfigError, match="fill needs"):
        check_host(phases, memory=small, asks_teacher=True)
    assert check_host(phases, memory=small, asks_teacher=False) == []


def test_a_gpu_holds_the_engine_or_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"teacher engine needs .* GiB a GPU but 22.8 of runtime.gpu_memory_gib=24"):
        placed(values, hardware=GPUS, training={"workers": 2})
    values["teacher"] |= {"dtype": "bfloat16"}
    placement = placed(values, hardware=GPUS, training={"workers": 2})
    assert placement.phases == () and [fit.label for fit in placement.fits] == [
        "teacher engine",
        "training worker, bag",
    ]


def test_a_teacher_with_a_head_is_not_split_into_stages(values: dict[str, Any]) -> None:
    values["teacher"] |= {"dtype": "bfloat16"}
    engine = {"pipeline_parallel": 2}
    with pytest.raises(ConfigError, match=r"teacher_engine.pipeline_parallel=2, but .* on one GPU: set it to 1"):
        placed(values, hardware=GPUS, training={"workers": 2}, teacher_engine=engine)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (
            {"teacher_engine": {"count": 9, "cpus": 1}},
            r"runtime.teacher_engine.count=9 x cpus=1 needs 9 CPUs but there",
        ),
        ({"training": {"workers": 9, "cpus_per_worker": 1}}, r"workers=9 x cpus_per_worker=1 needs 9 CPUs but there"),
    ],
)
def test_more_cpus_than_there_are_would_be_waited_for_for_ever(
    values: dict[str, Any], runtime: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        placed(values, **runtime)


def test_a_student_whose_model_is_not_there_is_a_note(values: dict[str, Any], tmp_path: Path) -> None:
    values["students"] = {
        "own": {"start": {"kind": "transformer", "model": {"path": str(tmp_path / "teacher")}}, "stages": [STAGE]},
        "far": {"start": {"kind": "transformer", "model": {"hub": "a/b", "revision": "c" * 40}}, "stages": [STAGE]},
    }
    config = TaskDistillConfig.model_validate(values)
    models = own_models(config)
    assert list(models) == ["own"] and models["own"].vocab == 10
    placement = plan_task_placement(config, teacher=LARGE, models=models, hardware=CPUS)
    assert placement.notes == ("students.far: its model is not at hand, so its memory was not checked",)


def test_engines_behind_a_door_take_nothing_here(values: dict[str, Any]) -> None:
    values["teacher"]["serve"] = "https://teacher.example:8100"
    engine = {"teacher_engine": {"count": 64, "cpus": 64}}
    placement = placed(values, **engine)
    assert [part.kind for part in placement.parts] == ["training worker"]
    assert [phase.label for phase in placement.phases] == ["training of bag"]
    del values["teacher"]["serve"]
    with pytest.raises(ConfigError, match=r"runtime\.teacher_engine"):
        placed(values, **engine)
