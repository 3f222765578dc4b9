from __future__ import annotations

from pathlib import Path

from task_pipeline_builders import STAGE, task_place

PREPARE = {"objective": "hard_labels", "epochs": 1.0, "batch_size": 4}


def test_students_learn_from_the_tuned_teacher_and_start_from_it(tmp_path: Path) -> None:
    place = task_place(tmp_path, evaluation={"gold_baseline": False})
    place.values["teacher"] |= {"prepare": [PREPARE]}
    place.values["students"] = {"kept": {"start": {"kind": "transformer", "keep_layers": 1}, "stages": [STAGE]}}
    place.go("train")
    tuned, student = place.workers.jobs
    assert tuned.stage.objective == "hard_labels" and dict(tuned.sets) == {"train": 6}
    assert student.stage.objective == "logit_mse"
    # The tuned model is an artifact like a student, and its signals are its own.
    assert place.run.artifacts.root / "students" == tuned.output_dir.parent
    assert "train teacher prepared" in place.said
    plain = task_place(tmp_path)
    plain.go("fill")
    assert plain.called[1] == "fill 11", "the untuned teacher is another one"
