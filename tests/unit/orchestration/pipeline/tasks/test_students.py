from __future__ import annotations

from pathlib import Path

import pytest
from task_pipeline_builders import STAGE, task_place

from configs import ConfigError
from student_train.feed.examples import ExampleSet


def test_students_are_addressed_before_any_is_trained(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["students"]["deep"] = {"start": {"kind": "transformer", "keep_layers": 5}, "stages": [STAGE]}
    with pytest.raises(ConfigError, match="keep_layers"):
        place.go("train")
    assert place.workers.jobs == []


def test_each_student_has_a_run_in_the_tracker_with_what_it_learns_from(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.go("train")
    bag, twin = (place.tracker.of("child", name)[0] for name in ("bag", "bag-gold"))
    assert (bag[1]["method"], twin[1]["method"]) == ("logit_mse", "hard_labels")
    assert bag[2][0] == "train and transfer" and twin[2][0] == "train"
    assert bag[2][1] != twin[2][1]
    points = [(name, step) for run, name, _, step in place.tracker.of("point", "bag")]
    assert ("dev/accuracy", 0) in points and ("dev/accuracy", 1) in points


def test_a_student_of_gold_alone_has_no_twin(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["students"]["bag"]["stages"] = [{"objective": "hard_labels", "epochs": 1.0}]
    ended = place.go("train")
    assert ended.students is not None and list(ended.students.chains) == ["bag"]
    assert place.called == ["release"], "nobody needs the teacher"


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["students"]["bag"] |= {"max_tokens": 1}
    place.go("train")
    assert "bag: train-transfer: 6 of 9 texts are cut to 1 tokens of the student" in place.said


def test_every_seed_has_a_curve_of_its_own_in_the_tracker_and_a_line_of_its_own(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["students"]["bag"] |= {"seeds": 2}
    place.go("train")
    runs = {run for run, *_ in place.tracker.of("point")}
    assert runs == {"bag seed 0", "bag seed 1", "bag-gold seed 0", "bag-gold seed 1"}
    opened = {name: place.tracker.of("child", name)[0][1] for name in ("bag", "bag seed 0", "bag seed 1")}
    assert len({tags["student_digest"] for tags in opened.values()}) == 3
    assert opened["bag seed 1"]["student"] == "bag"
    assert "train bag seed 1" in place.said and "train bag-gold seed 0" in place.said


def test_a_student_of_one_seed_has_its_curve_in_its_own_run(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.go("train")
    assert {run for run, *_ in place.tracker.of("point")} == {"bag", "bag-gold"}


def test_augmentation_alone_is_a_student_on_gold_labels_of_train_and_what_keeps_them(tmp_path: Path) -> None:
    place = task_place(tmp_path, evaluation={"augmented_baseline": True})
    rules = {"kind": "rules", "same_part": 0.0, "mask": 0.0, "ngram": 1.0, "copies": 3}
    place.values["data"] |= {"augment": {"more": rules, "others": rules | {"of": ["transfer"], "copies": 4}}}
    place.values["students"]["bag"]["stages"] = [STAGE | {"data": ["train", "more", "others"]}]
    ended = place.go("train")
    assert ended.students is not None
    assert ended.students.twins == {"bag-gold": "bag", "bag-augmented": "bag"}
    stages = [job.stage for job in place.workers.jobs]
    assert [(stage.objective, stage.data) for stage in stages[1:]] == [
        ("hard_labels", ("train",)),
        ("hard_labels", ("train", "more")),
    ]
    learned = ExampleSet.load(place.workers.jobs[2].train_examples)
    assert learned.teacher is None and len(learned) > 6 and (learned.gold >= 0).all()
    steps = {job.stage.steps for job in place.workers.jobs[1:]}
    assert len(steps) == 1, "nobody gets less time than the distilled student"
    assert place.tracker.of("child", "bag-augmented")[0][1]["method"] == "hard_labels"
