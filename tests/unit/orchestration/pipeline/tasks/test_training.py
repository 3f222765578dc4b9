from __future__ import annotations

from pathlib import Path

from model_cards import save_card
from task_heads import save_classifier
from task_pipeline_builders import STAGE, task_place


def test_a_job_is_told_all_that_its_workers_need(tmp_path: Path) -> None:
    place = task_place(tmp_path, evaluation={"gold_baseline": False})
    place.values["teacher"] |= {"licence": "apache-2.0"}
    place.values["students"]["bag"]["stages"] = [STAGE, STAGE | {"learning_rate": 0.5}]
    place.go("train")
    first, second = place.workers.jobs
    assert second.model_dir == first.output_dir
    assert (first.kind, first.labels, first.licence) == ("classification", ("good", "bad"), "apache-2.0")
    assert first.teacher == str(tmp_path / "teacher")
    (papers,) = first.papers
    assert (papers.teacher.name, papers.teacher.licence, papers.teacher.began) == ("teacher", "apache-2.0", True)
    assert dict(first.sets) == {"train": 6, "transfer": 3}
    assert first.dev_examples is not None and first.dev_examples.is_file() and first.accelerator == "cpu"
    assert "train bag 1/2" in place.said and "train bag 2/2" in place.said
    assert second.start == "bag over teacher embeddings of 4; then logit_mse"


def test_a_student_with_a_model_of_its_own_takes_its_papers_along_whatever_its_run_is_called(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    start = save_classifier(tmp_path / "start")
    save_card(start, licence="apache-2.0")
    (start / "LICENSE").write_text("the licence")
    place.values["teacher"] |= {"licence": "mit", "licence_override": None}
    save_card(tmp_path / "teacher", licence="mit")
    own = {"start": {"kind": "transformer", "model": {"path": str(start)}}, "stages": [STAGE], "seeds": 2}
    place.values["students"] = {"own": own}
    place.go("train")
    assert len(place.workers.jobs) == 4, "two seeds, each also on gold labels alone"
    for job in place.workers.jobs:
        teacher, begun = job.papers
        assert (teacher.teacher.name, teacher.teacher.began) == ("teacher", False)
        assert (begun.teacher.label, begun.teacher.licence, begun.teacher.taught) == (str(start), "apache-2.0", False)
        assert begun.files == {"LICENSE": b"the licence"}
        assert job.licence == "mit; start: apache-2.0"
    assert f"students.own.start.model: {start} is under apache-2.0, and so of own" in place.said
