"""The plan as people read it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plan_builders import NODE, SHAPE, experiment, place, planned

from cache import GenerateRequest, ScoreRequest
from configs import Experiment, load_experiment
from configs.budgets import PriceConfig
from configs.models import Device
from configs.schema import DistillConfig
from evaluation.cost import Saved
from orchestration.outputs.console import Console
from orchestration.plan import tables
from orchestration.plan.duration import TeacherWork, expected_seconds
from orchestration.plan.hardware import Hardware, HostMemory
from orchestration.plan.placement import plan_placement
from orchestration.plan.requests import FillPlan, NothingHeld, SequenceSet, plan_fill
from orchestration.plan.tables import (
    fill_time,
    render_placement,
    show_money,
    show_plain,
    show_plan,
    show_rollouts,
    warn_of_slow_dtype,
)


def test_the_report_shows_places_arithmetic_and_what_is_assumed() -> None:
    config = experiment(teacher_engine={"count": 2, "tensor_parallel": 2})
    teacher, student = planned(assumed=True), planned(assumed=False)
    placement = plan_placement(config, teacher=teacher, students={"kd": student}, hardware=NODE)
    time = expected_seconds(
        teacher,
        work=TeacherWork(10**6, 10**6),
        settings=config.runtime.teacher_engine,
        accelerator="gpu",
        dtype="bfloat16",
    )
    lines = render_placement(placement, fill=time)
    assert lines[:4] == [
        "placement on GPUs: 1 node(s) x 8 x 80 GiB; phases follow one another and reuse them",
        "  teacher engines: 2 x 2 GPUs",
        "  training workers: 2 x 1 GPU",
        "  student engines: 1 x 1 GPU",
    ]
    (engine,) = [line for line in lines if line.startswith("  teacher engine:")]
    (worker,) = [line for line in lines if line.startswith("  training worker, kd:")]
    assert engine.endswith("of 76.0 usable a GPU (assumed)")
    assert worker.endswith("of 76.0 usable a GPU")
    assert any("267.8k x 2 B / tensor_parallel 2" in line for line in lines)
    assert any(line.startswith("  fill: about") and line.endswith("(assumed)") for line in lines)


def test_the_report_says_how_parts_are_dealt_to_several_machines() -> None:
    runtime: dict[str, Any] = {
        "teacher_engine": {"count": 3, "tensor_parallel": 2}, "training": {"workers": 10}, "student_engine": {"count": 1},
    }  # fmt: skip
    lines = render_placement(place(Hardware("gpu", 2, 8, 80.0), **runtime))
    assert lines[1:4] == [
        "  teacher engines: 3 x 2 GPUs, spread over machines: 2 + 1",
        "  training workers: 10 x 1 GPU, packed over machines: 8 + 2",
        "  student engines: 1 x 1 GPU, spread over machines: 1",
    ]


def test_students_of_one_shape_share_a_line() -> None:
    config = experiment()
    twins = {"a": config.students["kd"], "b": config.students["kd"]}
    config = config.model_copy(update={"students": twins})
    placement = plan_placement(config, teacher=planned(), students={"a": planned(), "b": planned()}, hardware=NODE)
    lines = render_placement(placement)
    assert sum("training worker, a; training worker, b" in line for line in lines) == 1


def test_phases_that_take_the_same_of_a_machine_share_a_line() -> None:
    config = experiment()
    students = {"a": planned(), "b": planned(), "c": planned(SHAPE.model_copy(update={"layers": 1}))}
    config = config.model_copy(update={"students": dict.fromkeys(students, config.students["kd"])})
    cpus = Hardware("cpu", cpus=2, memory=HostMemory(64.0, 64.0))
    lines = render_placement(plan_placement(config, teacher=planned(), students=students, hardware=cpus))
    trained = [line for line in lines if "memory of a machine, training of" in line]
    assert len(trained) == 2
    assert "training of a; training of b: " in trained[0] and "(training worker 3." in trained[0]
    assert "training of c: " in trained[1] and "(training worker, c " in trained[1]


def test_the_plan_shows_every_phase() -> None:
    text = "\n".join(render_placement(place(Hardware("cpu", cpus=2, memory=HostMemory(64.0, 64.0)))))
    assert "memory of a machine, fill: " in text and "GiB of 60.8 usable (teacher engine " in text
    assert "memory of a machine, training of kd: " in text and "memory of a machine, answers of kd: " in text
    assert "CUDA" not in text and "process" in text
    assert "  teacher engines: 1 x 2 CPUs" in text


ASKED = (GenerateRequest((1, 2, 3), stop_ids=(0,), max_new_tokens=5),) * 2
GOLD = (ScoreRequest((1, 2, 3, 4, 5, 6, 7), prompt_len=3),)
PLAN = plan_fill(
    [SequenceSet("teacher", "train", ASKED, 8), SequenceSet("gold", "train", GOLD, 8)], cache=NothingHeld()
)
"""9 prompt tokens; at most 10 response tokens are written, and 4 are scored."""


def test_scored_tokens_are_read_and_only_answers_are_written() -> None:
    config, teacher = experiment(teacher_engine={"count": 2}), planned()
    expected = expected_seconds(
        teacher,
        work=TeacherWork(read_tokens=9 + 4, written_tokens=10),
        settings=config.runtime.teacher_engine,
        accelerator="cpu",
        dtype="bfloat16",
    )
    assert fill_time(PLAN, config=config, teacher=teacher, accelerator="cpu") == expected


def shown(*, held: bool = False, assumed: bool = False) -> str:
    stream = io.StringIO()
    plan = plan_fill([], cache=NothingHeld()) if held else PLAN
    time = fill_time(plan, config=experiment(), teacher=planned(), accelerator="cpu")
    show_plan(plan, time=time, console=Console(stream), assumed_rows=assumed)
    return stream.getvalue()


def test_every_set_has_a_row_and_the_sum_is_what_it_costs_at_most() -> None:
    text = shown()
    cells = [re.findall(r"[\w-]+", line) for line in text.splitlines() if re.search("(teacher|gold)-train", line)]
    rows = {name: numbers for name, *numbers in cells}
    assert rows == {"teacher-train": ["2", "0", "2", "6", "10"], "gold-train": ["1", "0", "1", "3", "4"]}
    assert "At most 23 teacher tokens, 0.0 MiB of cache, about 1m 00s with the engine's start." in text
    assert "At most 23 teacher tokens (assumed), 0.0 MiB of cache (assumed), about" in shown(assumed=True)
    assert "Nothing to ask: every row is in the cache and no engine starts for it." in shown(held=True)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ({"gpu_hour": 60.0, "currency": "EUR"}, "at most about 2.01 EUR, at 60 a GPU hour"),
        ({"teacher_million_tokens": 1e6}, "at most about 23.00 USD, at 1e+06 a million tokens"),
        ({"teacher_million_tokens": 1e6, "gpu_hour": 60.0}, "at most about 23.00 USD"),
        (None, ""),
    ],
)
def test_what_the_misses_cost_at_most_is_said_where_there_are_prices(
    prices: dict[str, object] | None, said: str
) -> None:
    config = experiment(teacher_engine={"count": 2})
    config = config.model_copy(update={"prices": None if prices is None else PriceConfig.model_validate(prices)})
    stream = io.StringIO()
    time = replace(fill_time(PLAN, config=config, teacher=planned(), accelerator="cpu"), seconds=60.2)
    show_money(PLAN, time=time, config=config, console=Console(stream))
    assert said in stream.getvalue() and bool(stream.getvalue()) == bool(said)
    nothing = plan_fill([], cache=NothingHeld())
    show_money(nothing, time=time, config=config, console=Console(empty := io.StringIO()))
    assert empty.getvalue() == ""


def test_what_is_cached_of_a_teacher_that_is_paid_by_the_token_is_worth_something() -> None:
    stream, saved = io.StringIO(), Saved(1_200, 0.0, 0.0, paid=3.456)
    # Also where nothing is to be asked any more.
    for plan in (PLAN, plan_fill([], cache=NothingHeld())):
        show_money(plan, time=None, saved=saved, config=experiment(), console=Console(stream))
    assert stream.getvalue() == "What is cached would cost about 3.46 USD to ask for again: 1,200 tokens.\n" * 2


WINDOWS = {"train": (ScoreRequest((1, 2, 3, 4, 5), prompt_len=1),) * 3, "dev": (ScoreRequest((6, 7), prompt_len=1),)}


def plain_plan(*, k: int) -> FillPlan:
    """15 tokens to learn, 2 to measure by."""
    sets = [SequenceSet("plain", split, requests, k) for split, requests in WINDOWS.items()]
    return plan_fill(sets, cache=NothingHeld())


def shown_plain(*, k: int, **stage: Any) -> str:
    said = {"objective": "kd", "source": "plain", "epochs": 2.0} | stage
    config = experiment(stages=[{"objective": "seqkd", "steps": 1}, said], plain=True)
    stream = io.StringIO()
    show_plain(plain_plan(k=k), config=config, console=Console(stream))
    return stream.getvalue()


def test_windows_of_plain_text_are_counted_with_what_they_ask_of_the_teacher() -> None:
    counted = "Windows of plain text: 3 to learn (15 tokens), 1 to measure by (2 tokens); "
    assert shown_plain(k=8) == f"{counted}the teacher scores each once, and what is cached costs nothing.\n"
    text = f"{counted}the cache keeps them as text, for which the teacher is not asked.\n"
    assert shown_plain(k=0, objective="sft") == text
    beside = "students.kd.stages.1 reads them with the teacher beside it, which reads "
    assert shown_plain(k=0, teacher="live") == (
        f"{text}{beside}about 30 tokens in 2 epochs, and 2 each time that it is measured; nothing of it is kept.\n"
    )
    steps = shown_plain(k=0, objective="sft", features=[{"kind": "cosine"}], epochs=None, steps=4, tokens_per_step=9)
    assert f"{beside}36 tokens at most in 4 steps, and 2 each" in steps


def test_nothing_is_said_of_plain_text_that_nobody_learns() -> None:
    stream = io.StringIO()
    show_plain(PLAN, config=experiment(), console=Console(stream))
    assert stream.getvalue() == ""


def test_what_is_stored_as_text_alone_is_nothing_to_ask() -> None:
    stream = io.StringIO()
    plan = plain_plan(k=0)
    time = fill_time(plan, config=experiment(), teacher=planned(), accelerator="cpu")
    show_plan(plan, time=time, console=Console(stream))
    (cells,) = (re.findall(r"[\w-]+", line) for line in stream.getvalue().splitlines() if "plain-train" in line)
    assert cells == ["plain-train", "3", "0", "0", "0", "0"]


def slow_warning(config: Experiment, *, idle: tuple[str, ...] = (), accelerator: Device = "cpu") -> str:
    console = Console(stream := io.StringIO())
    warn_of_slow_dtype(config, hardware=Hardware(accelerator), console=console, nothing_to_ask=idle)
    return " ".join(stream.getvalue().split())


def computing(*, teacher: str, stage: str) -> DistillConfig:
    config = experiment(stages=[{"objective": "kd", "steps": 1, "dtype": stage}])
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"dtype": teacher})})


def test_what_this_cpu_is_slow_in_is_named_with_the_setting_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "lacks_bfloat16", lambda: True)
    slow, quick = computing(teacher="bfloat16", stage="bfloat16"), computing(teacher="float32", stage="float32")
    assert slow_warning(slow).endswith('SET="teacher.dtype=float32 students.kd.stages.0.dtype=float32"')
    # A teacher that is not asked does not compute.
    assert slow_warning(slow, idle=("teacher",)).endswith('SET="students.kd.stages.0.dtype=float32"')
    assert slow_warning(quick) == "" and slow_warning(slow, accelerator="gpu") == ""
    monkeypatch.setattr(tables, "lacks_bfloat16", lambda: False)
    assert slow_warning(slow) == ""


def test_of_a_task_the_tuning_of_its_teacher_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "lacks_bfloat16", lambda: True)
    path = Path(__file__).parents[4] / "configs" / "intents.yaml"
    sets = re.search(r'SET="(.*)"', slow_warning(load_experiment(path)))
    assert sets is not None and "teacher.prepare.0.dtype=float32" in sets[1].split()
    # What is named is taken, and nothing is left.
    assert slow_warning(load_experiment(path, overrides=sets[1].split())) == ""


def test_what_students_write_themselves_is_announced_with_its_tokens() -> None:
    rollout = {"count": 3, "prompts": 4, "max_new_tokens": 10, "alpha": 0.0, "dev_prompts": 0}
    stream = io.StringIO()
    config = experiment(stages=[{"objective": "minillm", "rollout": rollout}])
    show_rollouts(config, console=Console(stream))
    most = 3 * 4 * (config.data.max_prompt_tokens + 10)
    assert f"kd writes 3 x 4 sequences itself: the teacher scores them while it trains, at most {most:,}" in (
        stream.getvalue()
    )
    stream = io.StringIO()
    former = {"count": 3, "replay_from": "former"}
    show_rollouts(experiment(stages=[{"objective": "minillm", "rollout": former}]), console=Console(stream))
    assert stream.getvalue() == "kd learns from the rollouts in former and asks no teacher.\n"
