"""Names and baselines of the models of one run and of several."""

from __future__ import annotations

from results_builders import model_results, run_results, task_model, task_run

from evaluation.analysis.entries import SIMPLER, START, TEACHER, entries_of
from evaluation.results import RunResults

MODELS = (
    model_results("teacher"),
    model_results("untouched"),
    model_results("narrow", role="untouched", start=None),
    model_results("sft", method="sft", start="narrow"),
    model_results("seqkd", method="seqkd"),
    model_results("kd", method="seqkd, kd"),
    model_results("own", method="kd", start=None),
)


def baselines(*runs: RunResults) -> dict[str, dict[str, str]]:
    return {entry.name: dict(entry.baselines) for entry in entries_of({str(at): run for at, run in enumerate(runs)})}


def test_every_student_has_three() -> None:
    found = baselines(run_results(*MODELS))
    assert found["kd"] == {TEACHER: "teacher", START: "untouched", SIMPLER: "seqkd"}
    assert found["teacher"] == found["untouched"] == {}


def test_the_simplest_method_starts_from_the_same_model_or_is_the_plainest() -> None:
    found = baselines(run_results(*MODELS))
    assert found["own"] == {TEACHER: "teacher", SIMPLER: "sft"}
    assert SIMPLER not in found["sft"] and found["seqkd"][SIMPLER] == "sft"


def test_labels_of_a_teacher_are_held_against_gold_labels_alone() -> None:
    rows = [task_model(name, right=80, method="hard_labels") for name in ("a", "a-gold")]
    found = {entry.name: entry.baselines for entry in entries_of({"run": task_run(*rows)})}
    assert found == {"a": {SIMPLER: "a-gold"}, "a-gold": {}}


def test_a_start_that_is_not_in_the_table_is_no_baseline() -> None:
    assert baselines(run_results(model_results("teacher"), model_results("kd", start="gone"))) == {
        "teacher": {},
        "kd": {TEACHER: "teacher"},
    }


def test_what_two_runs_hold_stands_once() -> None:
    again = (model_results("teacher"), model_results("untouched"), model_results("kd", digest="another", method="kd"))
    found = baselines(run_results(*MODELS), run_results(*again))
    assert list(found)[-1] == "1: kd"
    assert found["1: kd"] == {TEACHER: "0: teacher", START: "0: untouched"}
    assert len(found) == len(MODELS) + 1


def test_a_student_of_a_task_is_compared_with_itself_on_gold_labels_alone() -> None:
    rows = [
        task_model(name, right=80, method="hard_labels" if "gold" in name else "logit_mse")
        for name in ("a-gold", "b", "b-gold")
    ]
    found = {entry.name: entry.baselines for entry in entries_of({"run": task_run(*rows)})}
    assert found == {"a-gold": {}, "b": {SIMPLER: "b-gold"}, "b-gold": {}}
