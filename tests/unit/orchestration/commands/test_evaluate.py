"""`distill evaluate`: a table with intervals, what has to be known of a task, and all of it as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment
from results_builders import task_facts
from task_builders import rows_of
from task_files import SpeakingPool, tiny_model, write_task
from task_heads import save_classifier

from configs import dump_config
from evaluation.results import FinalScores
from orchestration.commands import evaluate as module
from orchestration.commands.main import main
from orchestration.comparison.finished_models import FinishedModel
from orchestration.outputs.console import Console
from orchestration.pipeline.evaluate_models import Engines, Found

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    pool = SpeakingPool(lambda prompt, seed: "sun" if "pie" in prompt or "jam" in prompt else "who knows")
    monkeypatch.setattr(Engines, "serve", lambda *_, **__: pool)


def test_the_table_says_what_was_found_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, model = write_task(tmp_path / "task"), tiny_model(tmp_path / "models").directory
    assert main(["evaluate", "--task", str(task), "--model", str(model), "--out", "out.json"]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if model.name in line)
    assert all(part in row for part in ("moods", "text", "accuracy", "33.3 %"))
    assert row.rstrip(" │").endswith("2")  # answers that could not be read
    assert "moods: the best constant answer scores 66.7 % on test; 0 test rows stand in train, 0 nearly" in said
    kept = json.loads((tmp_path / "out.json").read_text())
    assert (kept["split"], kept["failures"], kept["tasks"][0]["name"]) == ("test", [], "moods")
    assert kept["lines"][0]["estimate"]["value"] == pytest.approx(1 / 3)
    assert [each["predicted"] for each in kept["answers"][0]["examples"]] == [["good"], None, None]


def test_entities_nowhere_and_the_signature_of_a_metric_stand_below_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found: Found[FinalScores] = Found()
    pairs = {"names": (["0 1 PER"], ["0 1 PER", "-1 -1 PER"]), "letters": (["The cat sat here."], ["The cat sat."])}
    for name, pair in pairs.items():
        found.scores["kd", name] = FinalScores(name, "text", tuple(rows_of([pair])))
    tagging, writing = (
        replace(task_facts(name), kind=kind, labels=("PER",), metric=metric)
        for name, kind, metric in (("names", "tagging", "entity_f1"), ("letters", "generation", "bleu"))
    )
    lines = [*module.lines_of(found, [tagging, writing])]
    assert [(line.entities_not_in_the_row, line.signature[:8]) for line in lines] == [(1, ""), (0, "nrefs:1|")]
    module.show_lines(lines, [tagging, writing], split="test", console=Console(sys.stdout))
    said = capsys.readouterr().out
    assert "names: Entities that answers name and that do not stand in the row, which count as wrong: kd 1." in said
    assert "letters: the best constant answer scores 0.3 on test" in said
    assert "letters: How bleu is computed: nrefs:1|" in said


def test_dev_is_asked_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, model = write_task(tmp_path / "task"), tiny_model(tmp_path / "models").directory
    assert main(["evaluate", "--task", str(task), "--model", str(model), "--dev"]) == 0
    said = capsys.readouterr().out
    assert "Tasks on their dev splits" in said
    assert "100.0 %" in said


def test_a_model_that_cannot_be_loaded_is_named_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = write_task(tmp_path / "task")
    save_classifier(tmp_path / "head")
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", "--task", str(task), "--model", "head", "--model", "empty"]) == 1
    said = capsys.readouterr().out
    assert "! empty: " in said
    assert any("head" in line and "accuracy" in line for line in said.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "absent.yaml", "--model", "m"], "found neither"),
        (["--task", "task/task.yaml"], "nothing to evaluate: name run directories, or models with --model"),
        (["--model", "head"], "no task to evaluate on: name one with --task"),
        (["--task", "task/task.yaml", "--model", "head", "--model", "head"], "--model head is named twice"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_task(tmp_path / "task")
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_set_aside_rows_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: dict[str, Any] = {
        "train": [{"text": "a", "mood": "good"}],
        "dev": [{"text": "b", "mood": "good"}],
        "test": [{"text": "sun", "mood": "good"}, {"text": "c", "mood": "odd"}],
    }
    save_classifier(tmp_path / "head")
    main(["evaluate", "--task", str(write_task(tmp_path / "task", rows=rows)), "--model", "head"])
    said = capsys.readouterr().out
    assert "; 1 rows set aside" in said
    assert "moods: set aside: test row 1: " in said


def test_a_finished_run_is_evaluated_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [
        FinishedModel(name, "student", digit * 64, tiny_model(tmp_path / "models", seed=seed).directory, "float32")
        for seed, (name, digit) in enumerate([("teacher", "1"), ("kd", "2")])
    ]
    monkeypatch.setattr(module, "finished_models", lambda run: models)
    write_task(tmp_path / "task")
    run = tmp_path / "runs" / "fake-0123"
    run.mkdir(parents=True)
    # As it was written, in a folder that this command does not know, and as the run found it.
    for kept, task in (("config.yaml", "elsewhere/task.yaml"), ("resolved.yaml", f"{tmp_path}/task/task.yaml")):
        (run / kept).write_text(dump_config(experiment(tmp_path, evaluation={"tasks": [task]})))
    assert main(["evaluate", str(run), "--out", "out.json"]) == 0
    said = capsys.readouterr().out
    assert any("teacher" in line and "moods" in line for line in said.splitlines())
    kept = json.loads((tmp_path / "out.json").read_text())
    assert [each["model"] for each in kept["answers"]] == ["teacher", "kd"]
    # Beside the run, where the run itself would find it.
    assert len(list((tmp_path / "runs" / "evaluations").glob("*.json"))) == 2


def test_ray_is_not_imported_before_its_environment_is_prepared() -> None:
    """It reads once, on import, that its cluster asks for a token."""
    code = (
        "import sys; from orchestration.commands.main import command_parser; "
        "command_parser(['evaluate']).parse_args(['evaluate', '--model', 'm']); print('ray' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
