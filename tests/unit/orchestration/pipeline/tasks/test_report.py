"""What was found of a task, as results that are written and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from results_builders import short_run_cost, task_model
from task_files import write_task

from configs.task_experiment import TaskDistillConfig
from evaluation.shipping import distils_a_task
from orchestration.comparison.report import read_report, write_report
from orchestration.environment import installed_versions
from orchestration.inputs.tasks import load_task
from orchestration.outputs.fields import to_fields
from orchestration.outputs.foundations import RestsOn
from orchestration.pipeline.run import Written
from orchestration.pipeline.tasks.comparison import ComparedTask
from orchestration.pipeline.tasks.report import TaughtBy, task_report

EXPERIMENT: dict[str, Any] = yaml.safe_load(
    """
    name: moods
    task: task/task.yaml
    teacher: {model: {path: teacher}, licence: CC0-1.0}
    students:
      bag: {start: {kind: transformer, keep_layers: 2}, stages: [{objective: hard_labels, steps: 3}]}
    """
)


def test_a_report_says_where_everything_comes_from(tmp_path: Path) -> None:
    config = TaskDistillConfig.model_validate(EXPERIMENT)
    compared = ComparedTask(
        rows=[task_model("teacher", role="teacher", right=90), task_model("bag", right=80, seeds=2)],
        failures=["lstm: does not load"],
        evidence={"e" * 64: "what bag answered on test"},
        notes=["bag: accuracy under 2 training seeds"],
    )
    report = task_report(
        compared,
        task=load_task(write_task(tmp_path / "task")),
        written=Written(config, tmp_path, {"task": "t" * 64}),
        teacher=TaughtBy("a teacher", "i" * 64, "CC0-1.0", "v" * 64, ("it owes a notice",)),
        rests_on=RestsOn({}, {}, {}, (), ()),
        cost=short_run_cost(),
        notes=["train: 3 texts are cut"],
    )
    results = report.results
    assert distils_a_task(results) and results.tasks[0].name == "moods"
    assert results.notes == ("train: 3 texts are cut", "bag: accuracy under 2 training seeds")
    assert results.settings["students.bag.stages.0.objective"] == "hard_labels"
    provenance = results.provenance
    assert (provenance.teacher, provenance.teacher_identity, provenance.cache_digest) == (
        "a teacher",
        "i" * 64,
        "v" * 64,
    )
    assert provenance.licence_terms == ("it owes a notice",)
    assert provenance.teacher_licence == "CC0-1.0" and provenance.data == {"task": "t" * 64}
    assert provenance.versions == installed_versions()
    assert report.missing == ("lstm: does not load",)
    write_report(report, tmp_path)
    assert to_fields(read_report(tmp_path)) == to_fields(report)
