"""Experiments with general stages: in which order things are made, what addresses them, and what is shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from task_heads import save_classifier
from task_pipeline_builders import STAGE, TaskPlace, task_place

from student_train.feed.examples import ExampleSet
from student_train.job import GeneralJob

GENERAL = {
    "objective": "features", "data": ["plain"], "steps": 2, "select": "last",
    "features": [{"kind": "hidden_mse"}],
}  # fmt: skip
HALF = {
    "start": {"kind": "transformer", "shape": {"layers": 1, "hidden": 8, "heads": 2, "mlp": 8, "max_positions": 32}},
    "general": [GENERAL],
    "stages": [STAGE],
}


def general_place(root: Path, **students: Any) -> TaskPlace:
    place = task_place(root)
    for name, texts in (("plain", ["rome sun where", "where where", "sun rome"]), ("held", ["where rome"])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    place.values["data"]["plain"] = {
        "train": {"path": "plain.jsonl"}, "dev": {"path": "held.jsonl"}, "max_tokens": 16
    }  # fmt: skip
    place.values["students"] = students or {"half": HALF}
    place.values["evaluation"] = {"gold_baseline": False}
    return place


def test_a_student_learns_plain_text_first_and_begins_its_task_there(tmp_path: Path) -> None:
    place = general_place(tmp_path)
    students = place.go("train").students
    general, task = place.workers.jobs
    assert isinstance(general, GeneralJob) and not isinstance(task, GeneralJob)
    assert task.model_dir == general.output_dir
    assert general.taught is not None and general.taught.directory == (tmp_path / "teacher").resolve()
    assert ExampleSet.load(general.train_examples).kind == "tagging" and general.sets == {"plain": 2}
    assert students is not None
    (chain,) = students.chains["half"]
    assert chain.links[0].origin == "random encoder of 1 layers x 8; then features on plain text"
    assert "2 plain texts" in place.said, "one of three stands in dev of the task"


def test_what_is_general_is_made_once_for_every_task_and_student(tmp_path: Path) -> None:
    other = HALF | {"stages": [STAGE | {"learning_rate": 0.5}]}
    place = general_place(tmp_path, half=HALF, other=other)
    place.go("train")
    assert [type(job) for job in place.workers.jobs].count(GeneralJob) == 1
    (tmp_path / "train.jsonl").write_text((tmp_path / "train.jsonl").read_text().replace("rain oslo", "rain rome"))
    place.go("train")
    assert [type(job) for job in place.workers.jobs].count(GeneralJob) == 1, "nothing of the task addresses it"


def test_general_stages_and_those_after_them_have_the_papers_of_a_model_that_the_student_names(tmp_path: Path) -> None:
    own = {"kind": "transformer", "model": {"path": str(save_classifier(tmp_path / "own"))}}
    place = general_place(tmp_path, own=HALF | {"start": own})
    place.go("train")
    assert [type(job) for job in place.workers.jobs].count(GeneralJob) == 1 < len(place.workers.jobs)
    for job in place.workers.jobs:
        assert [each.teacher.label for each in job.papers if each.teacher.began] == [str(tmp_path / "own")]


@pytest.mark.parametrize("changed", ["stage", "texts", "teacher"])
def test_whatever_went_in_addresses_it(tmp_path: Path, changed: str) -> None:
    place = general_place(tmp_path)
    place.go("train")
    if changed == "stage":
        place.values["students"]["half"] = HALF | {"general": [GENERAL | {"steps": 3}]}
    elif changed == "texts":
        (tmp_path / "plain.jsonl").write_text('{"text": "rome where sun"}\n')
    else:
        place.values["teacher"]["dtype"] = "bfloat16"
    place.go("train")
    general = [job for job in place.workers.jobs if isinstance(job, GeneralJob)]
    assert len({job.output_dir for job in general}) == 2


def test_a_teacher_gets_a_head_from_plain_text_and_students_learn_from_that(tmp_path: Path) -> None:
    # The tiny teacher's tokenizer has no mask token of its own.
    masked = {"objective": "masked_lm", "data": ["plain"], "steps": 2}
    place = general_place(tmp_path)
    settings = tmp_path / "teacher/tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"mask_token": "##rain"}))
    place.values["teacher"] |= {"general": [masked], "prepare": [{"objective": "hard_labels", "epochs": 1.0}]}
    place.go("train")
    learned, tuned, general, _ = place.workers.jobs
    assert isinstance(learned, GeneralJob) and learned.model_dir == (tmp_path / "teacher").resolve()
    assert learned.taught is None and tuned.model_dir == learned.output_dir
    assert general.taught is not None and general.taught.directory == learned.output_dir
