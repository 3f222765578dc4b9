"""Where the models of a finished experiment lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment
from results_builders import model_results, run_results

from configs import ConfigError, dump_config
from orchestration.comparison.finished_models import finished_models
from orchestration.comparison.report import Report, write_report
from orchestration.outputs.foundations import RestsOn


def finished(tmp_path: Path, *, rows: Any, directories: dict[str, str], **blocks: Any) -> Path:
    run_dir = tmp_path / "runs" / "fake-0123456789"
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(dump_config(experiment(tmp_path, **blocks)))
    rests_on = RestsOn({}, directories, {}, (), ())
    write_report(Report(run_results(*rows), rests_on, {}), run_dir)
    return run_dir


def test_every_row_is_a_model_on_disk(tmp_path: Path) -> None:
    rows = [
        model_results("teacher", digest="1" * 64),
        model_results("untouched", digest="2" * 64),
        model_results("kd", digest="3" * 64),
    ]
    (tmp_path / "runs" / "inits" / ("2" * 16)).mkdir(parents=True)
    run_dir = finished(tmp_path, rows=rows, directories={"teacher.model": "models/teacher"})
    found = {each.name: (each.role, each.digest, each.directory, each.dtype) for each in finished_models(run_dir)}
    assert found == {
        "teacher": ("teacher", "1" * 64, Path("models/teacher"), "float32"),
        "untouched": ("untouched", "2" * 64, tmp_path / "runs" / "inits" / ("2" * 16), "float32"),
        "kd": ("student", "3" * 64, tmp_path / "runs" / "students" / ("3" * 16), "float32"),
    }


def test_each_of_several_teachers_lies_where_it_was_loaded_from(tmp_path: Path) -> None:
    second = {"model": {"path": "other"}, "dtype": "bfloat16", "top_k": 4}
    rows = [model_results("teacher", digest="1" * 64), model_results("second", role="teacher", digest="2" * 64)]
    directories = {"teacher.model": "models/teacher", "teachers.second.model": "models/other"}
    run_dir = finished(tmp_path, rows=rows, directories=directories, teachers={"second": second})
    found = {each.name: (each.directory, each.dtype) for each in finished_models(run_dir)}
    assert found == {
        "teacher": (Path("models/teacher"), "float32"), "second": (Path("models/other"), "bfloat16")
    }  # fmt: skip


def test_a_start_that_was_not_cut_lies_where_it_was_loaded_from(tmp_path: Path) -> None:
    own = {"init": {"model": {"path": "own"}}, "stages": [{"objective": "kd", "steps": 4, "dtype": "bfloat16"}]}
    row = model_results("untouched (own)", role="untouched", digest="2" * 64)
    directories = {"students.own.init.model": "models/own"}
    run_dir = finished(tmp_path, rows=[row], directories=directories, students={"own": own})
    (model,) = finished_models(run_dir)
    assert (model.directory, model.dtype) == (Path("models/own"), "bfloat16")


def test_what_is_not_finished_or_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished comparison"):
        finished_models(tmp_path)
    run_dir = finished(tmp_path, rows=[model_results("teacher")], directories={})
    with pytest.raises(ConfigError, match=r"teacher\.model: the comparison does not say from where it was loaded"):
        finished_models(run_dir)
