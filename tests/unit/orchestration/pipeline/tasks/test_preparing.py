from __future__ import annotations

import json
from pathlib import Path

import pytest
from task_pipeline_builders import STAGE, task_place

from configs import ConfigError
from orchestration.outputs.prepared import PREPARED
from orchestration.pipeline.tasks import preparing
from orchestration.pipeline.tasks.preparing import prepared_models

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


def test_whoever_serves_finds_the_tuned_teacher_by_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = task_place(tmp_path, evaluation={"gold_baseline": False})
    place.values["teacher"] |= {"prepare": [PREPARE]}
    run = place.run
    monkeypatch.setattr(preparing, "run_directory", lambda config, *, config_dir: run.directory)
    with pytest.raises(
        ConfigError, match=r"^teacher\.prepare tunes the teacher before it is asked, and .* distill fill"
    ):
        prepared_models(run.config, config_dir=tmp_path)
    place.go("fill")
    (tuned,) = place.workers.jobs
    assert prepared_models(run.config, config_dir=tmp_path) == {"teacher": tuned.output_dir}
    # One that was touched since is not the one that answered.
    (tuned.output_dir / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="none that is tuned"):
        prepared_models(run.config, config_dir=tmp_path)
    (run.directory / PREPARED).write_text(json.dumps(["nonsense"]))
    with pytest.raises(ConfigError, match="none that is tuned"):
        prepared_models(run.config, config_dir=tmp_path)


def test_nothing_is_looked_for_where_nothing_is_tuned(tmp_path: Path) -> None:
    assert prepared_models(task_place(tmp_path).run.config, config_dir=tmp_path) == {}
