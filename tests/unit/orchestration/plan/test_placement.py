"""Which parts an experiment has, what does not fit, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest
from plan_builders import LLAMA_70B, NODE, PARAMETERS, SHAPE, experiment, place, planned, sizes

from configs import ConfigError
from configs.doors import DoorConfig
from configs.schema import DistillConfig, EngineSettings
from configs.stages import StageConfig
from orchestration.plan.hardware import GIB, Hardware
from orchestration.plan.host_memory import FILL
from orchestration.plan.memory import kv_tokens
from orchestration.plan.placement import Part, place_further_teacher, plan_placement


def test_every_part_takes_gpus_or_cpus() -> None:
    runtime: dict[str, Any] = {
        "teacher_engine": {"count": 2, "tensor_parallel": 4},
        "training": {"workers": 3, "cpus_per_worker": 0.5},
        "student_engine": {"count": 5, "cpus": 1},
    }
    assert place(NODE, **runtime).parts == (
        Part("teacher engine", 2, 4),
        Part("training worker", 3, 1),
        Part("student engine", 5, 1),
    )
    runtime["teacher_engine"] = {"count": 2, "tensor_parallel": 2, "pipeline_parallel": 2}
    assert place(NODE, **runtime).parts[0] == Part("teacher engine", 2, 4)
    runtime["teacher_engine"] = {"count": 2, "cpus": 4}
    assert place(Hardware("cpu", cpus=8), **runtime).parts == (
        Part("teacher engine", 2, 4),
        Part("training worker", 3, 0.5),
        Part("student engine", 5, 1),
    )


@pytest.mark.parametrize(
    ("part", "hardware", "dealt"),
    [
        (Part("teacher engine", 4, 2), Hardware("gpu", 2, 8), (2, 2)),
        (Part("teacher engine", 5, 1), Hardware("gpu", 3, 8), (2, 2, 1)),
        (Part("student engine", 2, 1), Hardware("gpu", 3, 8), (1, 1)),
        (Part("training worker", 11, 1), Hardware("gpu", 2, 8), (8, 3)),
        (Part("training worker", 5, 1.5), Hardware("cpu", 3, cpus=4), (2, 2, 1)),
        # On one machine there is nothing to say, and of machines that are not known nothing that is sure.
        (Part("teacher engine", 4, 2), Hardware("gpu", 1, 8), ()),
        (Part("teacher engine", 4, 2), Hardware("cpu", 3), ()),
    ],
)
def test_engines_are_spread_and_workers_packed(part: Part, hardware: Hardware, dealt: tuple[int, ...]) -> None:
    assert part.dealt(hardware) == dealt


def test_an_engine_of_a_student_is_planned_in_the_widest_dtype_that_it_runs_in() -> None:
    config = experiment()
    stages = [{"objective": "kd", "steps": 1, "dtype": "float32"}, {"objective": "kd", "steps": 1}]
    student = config.students["kd"].model_copy(update={"stages": tuple(map(StageConfig.model_validate, stages))})
    config = config.model_copy(update={"students": {"kd": student}})
    placement = plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=NODE)
    fits = {fit.label: sizes(fit)["weights"] for fit in placement.fits}
    assert fits["student engine, kd"] == 4 * PARAMETERS
    assert fits["teacher engine"] == 2 * PARAMETERS


def test_more_workers_than_key_value_heads_repeat_them() -> None:
    settings = EngineSettings(tensor_parallel=8, kv_cache_gib=1.0)
    # One of two heads is kept whole by every GPU: 2 x 4 layers x 1 head x 8 x 2 B = 128 B a token.
    assert kv_tokens(SHAPE, settings=settings, dtype="bfloat16") == GIB // 128
    assert place(NODE, teacher_engine={"tensor_parallel": 8})


def test_kept_layers_must_exist() -> None:
    config = experiment()
    students = {"kd": planned()}
    for keep, words in ((9, "init.keep_layers=9 but the teacher has 4 layers"), ((0, 4), "names layer 4")):
        init = config.students["kd"].init.model_copy(update={"keep_layers": keep})
        changed = config.model_copy(
            update={"students": {"kd": config.students["kd"].model_copy(update={"init": init})}}
        )
        with pytest.raises(ConfigError, match=f"students.kd.*{words}"):
            plan_placement(changed, teacher=planned(), students=students, hardware=NODE)


def test_the_costliest_stage_is_planned() -> None:
    config = experiment()
    stages = [{"objective": "kd", "steps": 1}, {"objective": "kd", "steps": 1, "dtype": "float32"}]
    student = {"init": {"keep_layers": 2}, "stages": stages}
    config = DistillConfig.model_validate(config.model_dump() | {"students": {"kd": student}})
    fits = plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=NODE).fits
    assert [fit.label for fit in fits] == ["teacher engine", "training worker, kd", "student engine, kd"]
    assert sizes(fits[1])["weights"] == PARAMETERS * 4


def test_memory_is_not_a_limit_on_cpus() -> None:
    placement = place(Hardware("cpu", gpu_memory_gib=1.0, cpus=2), teacher_engine={"kv_cache_gib": 500.0})
    assert not placement.fits[0].fits(memory_gib=1.0)


def test_a_student_of_unknown_shape_is_noted_and_not_checked() -> None:
    placement = place(NODE, student=None)
    assert [fit.label for fit in placement.fits] == ["teacher engine"]
    assert placement.notes == (
        "students.kd: its model is not at hand and has no shape block, so its memory was not checked",
    )


@pytest.mark.parametrize(("gpus", "fits"), [(6, True), (5, False)])
def test_rollouts_need_gpus_beside_those_of_the_group(gpus: int, fits: bool) -> None:
    """Two workers, two groups of one teacher, two student engines: all of them live at once."""
    runtime = {
        "training": {"workers": 2},
        "teacher_engine": {"count": 1, "tensor_parallel": 2},
        "student_engine": {"count": 2},
    }
    raw = experiment(**runtime).model_dump()
    raw["students"]["kd"]["stages"] = [{"objective": "minillm", "rollout": {"count": 1}}]
    config, hardware = DistillConfig.model_validate(raw), Hardware("gpu", 1, gpus, 80.0)
    if fits:
        plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=hardware)
        return
    said = r"on 6 GPUs at once: runtime.training.workers=2, 2 of runtime.teacher_engine .* but there are 5"
    with pytest.raises(ConfigError, match=said):
        plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=hardware)


def test_gpus_that_no_group_can_use_are_noted() -> None:
    placement = place(Hardware("gpu", 1, 6), teacher_engine={"tensor_parallel": 4})
    assert any("tensor_parallel=4 leaves 2 GPUs" in note for note in placement.notes)


@pytest.mark.parametrize(
    ("rollout", "colocate", "words"),
    [
        ({"count": 1}, False, "each have GPUs of their own"),
        ({"count": 1}, True, "take turns on the GPUs of the workers"),
        ({"count": 1, "replay_from": "rollouts"}, False, None),
    ],
)
def test_who_shares_gpus_in_on_policy_stages_is_noted(
    rollout: dict[str, Any], colocate: bool, words: str | None
) -> None:
    stages = [{"objective": "minillm", "rollout": rollout}]
    notes = place(NODE, stages=stages, training={"workers": 1}, colocate=colocate).notes
    assert notes == ((f"in on-policy stages workers, teacher engines and student engines {words}",) if words else ())


def test_a_further_teacher_takes_the_places_of_the_first() -> None:
    config, cpu = experiment(), Hardware("cpu", cpus=8)
    placement = place_further_teacher(config, teacher=planned(), hardware=cpu)
    assert [part.kind for part in placement.parts] == ["teacher engine"]
    assert [phase.label for phase in placement.phases] == [FILL] and len(placement.fits) == 1
    with pytest.raises(ConfigError, match=r"teacher engine needs .* GiB a GPU"):
        place_further_teacher(config, teacher=planned(LLAMA_70B), hardware=NODE)


def behind_a_door(config: DistillConfig) -> DistillConfig:
    teacher = config.teacher.model_copy(update={"serve": DoorConfig(url="https://teacher.example:8100")})
    return config.model_copy(update={"teacher": teacher})


def test_a_teacher_behind_a_door_takes_nothing() -> None:
    """Not even engines that no machine here could hold count."""
    engine = {"count": 9, "tensor_parallel": 3, "kv_cache_gib": 200.0}
    config = behind_a_door(experiment(teacher_engine=engine))
    for hardware in (NODE, Hardware("cpu", cpus=8)):
        placement = plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=hardware)
        assert [part.kind for part in placement.parts] == ["training worker", "student engine"]
        assert not any("teacher" in fit.label for fit in placement.fits)
        assert FILL not in [phase.label for phase in placement.phases]
        assert any("answers behind teacher.example:8100" in note for note in placement.notes)
        further = place_further_teacher(config, teacher=planned(LLAMA_70B), hardware=hardware)
        assert (further.parts, further.fits, further.phases) == ((), (), ())


def test_rollouts_beside_a_teacher_behind_a_door_need_no_gpu_for_it() -> None:
    runtime = {"training": {"workers": 2}, "teacher_engine": {"tensor_parallel": 2}, "student_engine": {"count": 2}}
    config = behind_a_door(experiment(stages=[{"objective": "minillm", "rollout": {"count": 1}}], **runtime))
    hardware = Hardware("gpu", 1, 4, 80.0)
    placement = plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=hardware)
    assert any("workers and student engines each have GPUs of their own" in note for note in placement.notes)
    with pytest.raises(ConfigError, match=r"on 4 GPUs at once: .* but there are 3"):
        plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=Hardware("gpu", 1, 3, 80.0))
