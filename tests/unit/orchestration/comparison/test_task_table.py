"""The comparison of a task on the terminal."""

from __future__ import annotations

import io

from results_builders import task_model, task_run

from evaluation.statistics import Resampling
from orchestration.comparison.report import Report
from orchestration.comparison.task_table import print_task_report
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import RestsOn

HOW = Resampling(draws=300)
MODELS = (
    task_model("teacher", role="teacher", right=90, text_s=0.02, parameters=110_000_000, disk_bytes=440_000_000),
    task_model("bag", right=80, text_s=0.002, parameters=9_000_000, disk_bytes=36_000_000),
    task_model("bag-gold", right=60, method="hard_labels", serving=None, failures=("speed: gone",)),
)


def printed(*models: object, samples: int = 0, **fields: object) -> str:
    stream = io.StringIO()
    report = Report(task_run(*models, **fields), RestsOn({}, {}, {}, (), ()), {})  # type: ignore[arg-type]
    print_task_report(report, Console(stream), samples=samples, how=HOW)
    return stream.getvalue()


def test_every_model_and_what_a_constant_answer_scores() -> None:
    said = printed(*MODELS)
    flat = " ".join(said.replace("│", " ").split())
    assert "bag 9.0 M 36.0 MB 80.0 %" in flat and "2.00 ms," in flat and "10.0 x" in flat
    assert "89 %" in flat and "majority class" in flat and "30.0 %" in flat
    assert "not measured: bag-gold: speed: gone" in flat
    assert "bag: " in flat and "distillation adds +20.0 pp" in flat
    assert "as fast as the teacher: CPU, 2 threads" in flat
    assert "Times: teacher 1m 01s" in flat


def test_some_rows_are_shown() -> None:
    assert "message 0" not in printed(*MODELS)
    said = printed(*MODELS, samples=2)
    assert "message 0" in said and "message 1" in said and "message 2" not in said and "right" in said


def test_models_that_say_the_same_of_a_row_stand_together() -> None:
    said = printed(*MODELS, samples=1)
    assert "teacher, bag, bag-gold" in " ".join(said.split())


def test_what_was_not_answered_is_a_dash() -> None:
    said = printed(task_model("bag", right=80, tasks=(), dev=(), serving=None), failures=("teacher: does not load",))
    assert "not measured: teacher: does not load" in said and "bag" in said
    assert printed(*MODELS[1:]).count("-") > 4


def test_times_are_beside_those_of_a_teacher_that_was_timed() -> None:
    silent = task_model("teacher", role="teacher", right=90, serving=None)
    assert "Times a text: CPU, 2 threads" in " ".join(printed(silent, MODELS[1]).split())
