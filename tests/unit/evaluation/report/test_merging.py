from __future__ import annotations

from dataclasses import replace

from results_builders import finished_run, task_model, task_run

from evaluation.report.merging import parts_of, run_names
from evaluation.verdict import verdicts


def test_a_run_alone_is_itself() -> None:
    run = finished_run()
    (part,) = parts_of([run])
    assert part.results == run
    assert part.numbers == {"teacher": 0, "untouched": 1, "seqkd": 2, "kd": 3, "minillm": 4}


def test_runs_over_the_same_prompts_stand_in_one_table() -> None:
    one = finished_run(experiment="short")
    other = replace(one, experiment="long", models=tuple(
        replace(model, digest=f"other {model.digest}") if model.role == "student" else model for model in one.models
    ))  # fmt: skip
    (part,) = parts_of([one, other])
    assert [model.name for model in part.results.models] == [
        "teacher", "untouched", "short: seqkd", "short: kd", "short: minillm", "long: seqkd", "long: kd", "long: minillm",
    ]  # fmt: skip
    assert {model.start for model in part.results.models if model.role == "student"} == {"untouched"}
    assert len(set(part.numbers.values())) == 8


def test_the_start_of_a_student_is_the_one_of_its_run() -> None:
    one = finished_run(experiment="short")
    other = replace(
        one, experiment="long", models=tuple(replace(model, digest=f"other {model.digest}") for model in one.models)
    )
    (part,) = parts_of([one, other])
    starts = {model.name: model.start for model in part.results.models}
    assert starts["short: kd"] == "short: untouched"
    assert starts["long: kd"] == "long: untouched"


def test_runs_that_met_other_prompts_or_tasks_are_told_apart() -> None:
    one = finished_run(experiment="one")
    elsewhere = replace(one, experiment="elsewhere", prompts=("another", *one.prompts[1:]))
    (facts, *_) = one.tasks
    changed = replace(one, experiment="changed", tasks=(replace(facts, digest="changed"),))
    assert [part.title for part in parts_of([one, elsewhere, changed])] == ["one", "elsewhere", "changed"]


def test_students_of_another_mixture_stand_in_another_table() -> None:
    """The same prompts and answers, but what each student is from is something else."""
    one = finished_run(experiment="one")
    mixed = replace(one, experiment="mixed", held_against="a mixture with weight 0.5")
    other = replace(one, experiment="other", held_against="a mixture with weight 0.9")
    assert [part.title for part in parts_of([one, mixed, other])] == ["one", "mixed", "other"]
    assert [part.title for part in parts_of([mixed, replace(mixed, experiment="again")])] == ["mixed, again"]


def test_a_task_that_only_one_run_has_does_not_part_them() -> None:
    one = finished_run(experiment="one")
    fewer = replace(one, experiment="fewer", tasks=one.tasks[:1])
    (part,) = parts_of([fewer, one])
    assert [task.name for task in part.results.tasks] == [task.name for task in one.tasks]


def test_runs_of_one_name_are_told_apart_by_their_configuration() -> None:
    one = finished_run()
    other = replace(one, provenance=replace(one.provenance, config_digest="f" * 64))
    assert run_names([one, other]) == (f"quickstart {one.provenance.config_digest[:7]}", "quickstart fffffff")
    assert len(set(run_names([one, one]))) == 2


def test_runs_that_distil_one_task_of_one_teacher_stand_together() -> None:
    run = task_run(task_model("teacher", role="teacher", right=90))
    assert len(parts_of([run, replace(run, experiment="other")])) == 1
    other_rows = replace(run, tasks=(replace(run.tasks[0], digest="other rows"),))
    assert len(parts_of([run, other_rows])) == 2
    other_task = replace(run, tasks=(replace(run.tasks[0], name="moods"),))
    assert len(parts_of([run, other_task])) == 2
    other_teacher = replace(run, provenance=replace(run.provenance, teacher_identity="another"))
    assert len(parts_of([run, other_teacher])) == 2
    assert len(parts_of([run, finished_run()])) == 2


def test_two_students_of_one_run_that_are_the_same_on_gold_alone_each_keep_that_twin() -> None:
    twins = [replace(task_model(name, right=60), digest="the same") for name in ("plain-gold", "rules-gold")]
    run = task_run(
        task_model("teacher", role="teacher", right=90), task_model("plain", right=60), twins[0],
        task_model("rules", right=80), twins[1],
    )  # fmt: skip
    (alone,) = parts_of([run])
    assert alone.results == run
    (beside,) = parts_of([run, replace(run, experiment="other")])
    assert [model.name for model in beside.results.models] == [model.name for model in run.models]
    assert "over gold labels alone (rules-gold)" in verdicts(beside.results)["rules"].sentence
