from __future__ import annotations

from pathlib import Path

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
