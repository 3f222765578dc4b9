"""Members are the examples that steps have read, by what was known of their labels; others are held out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audited_task_runs import FILL, audited_task_run, bag, mood_rows
from task_pipeline_builders import FakeWorkers

from orchestration.audits.opening import open_audited
from orchestration.audits.tasks.beliefs import LabelBeliefs
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.audits.tasks.learned import LearnedRows, learned_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedTaskRun:
    counts = {"train": 40, "dev": 12, "test": 16}
    rows: dict[str, list[dict[str, str]]] = {name: mood_rows(count, seed=count) for name, count in counts.items()}
    rows["transfer"] = [{"text": f"rain {word} {word}"} for word in FILL[:10]]
    swap = {"swap": {"kind": "swap", "of": ["train"]}}
    students = {
        "both": bag({"objective": "soft_labels", "data": ["train", "transfer", "swap"], "batch_size": 100}),
        "some": bag({"batch_size": 16}),
    }
    place = tmp_path_factory.mktemp("learned")
    data = {"transfer": [{"path": "transfer.jsonl"}], "augment": swap}
    found = open_audited(audited_task_run(place, rows, students=students, workers=FakeWorkers(), data=data))
    assert isinstance(found, FinishedTaskRun)
    return found


def learned(run: FinishedTaskRun, name: str) -> LearnedRows:
    student = next(each for each in run.students if each.name == name)
    return learned_rows(student, run, LabelBeliefs(run.task.config, "cpu"))


def test_rows_are_told_apart_by_what_was_known_of_them(run: FinishedTaskRun) -> None:
    found = learned(run, "both")
    assert len(found.labelled) == 40 and len(found.unlabelled) == 10 and len(found.others) == 28
    assert all(row.example is not None and row.taught is not None for row in found.labelled)
    assert all(row.example is None and row.taught is not None for row in found.unlabelled)
    # The lesson holds what the teacher believes of dev, and of no test row.
    assert sum(row.taught is not None for row in found.others) == 12
    assert found.taught and any("texts that were made from others were not asked about" in line for line in found.notes)


def test_only_rows_that_steps_have_read_are_members(run: FinishedTaskRun) -> None:
    found = learned(run, "some")
    assert len(found.labelled) == 16 and not found.taught and not found.unlabelled
    assert "hard_labels read 16 of its 40 examples, and only those count as training rows" in found.notes
    whole = next(each for each in run.students if each.name == "some")
    whole = replace(whole, stages=(replace(whole.stages[0], selected_step=None),))
    assert len(learned_rows(whole, run, LabelBeliefs(run.task.config, "cpu")).labelled) == 40
