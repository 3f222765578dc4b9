from __future__ import annotations

from pathlib import Path

from task_pipeline_builders import task_place


def test_a_run_says_where_it_works_and_on_what(tmp_path: Path) -> None:
    run = task_place(tmp_path).run
    assert run.device == "cpu"
    assert run.logs == tmp_path / "runs/moods-1/logs" and run.logs.is_absolute()
    assert run.config.task == tmp_path / "moods.yaml"
