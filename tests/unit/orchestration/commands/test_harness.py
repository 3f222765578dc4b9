"""`distill evaluate --harness`: what contradicts itself, what is missing, the table, the JSON."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness_tasks import KnowingPool, write_harness_tasks
from task_files import tiny_model

from orchestration.commands import harness as module
from orchestration.commands.main import main
from orchestration.outputs.console import Console
from orchestration.pipeline.evaluate_models import Engines

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Engines, "serve", lambda *_: KnowingPool())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--harness", "a", "--task", "t.yaml"], "leave --task out"),
        (["--harness", "a", "--dev"], "leave --dev out"),
        (["--harness", " ,"], "--harness names no task"),
        (["--harness", "a", "--harness-tasks", "absent"], "--harness-tasks absent: no such directory"),
        (["--harness", "a", "--harness-limit", "0"], "is not a count"),
    ],
)
def test_what_cannot_work_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["evaluate", "--model", "m", *arguments])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert main(["evaluate", "--harness", "arc_easy", "--model", "m"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith('not installed: .venv/bin/python -m pip install "lm-eval==0.4.13"') and "\n" not in error


def test_the_cure_names_the_release_of_the_extra() -> None:
    assert f'harness = ["lm-eval=={module.RELEASE}"]' in (ROOT / "pyproject.toml").read_text()


def test_it_is_imported_only_when_it_is_asked_for() -> None:
    code = "import sys, orchestration.commands.harness; print('lm_eval' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_the_table_and_the_json_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval")
    folder = write_harness_tasks(tmp_path / "tasks", "facts", "broken")
    model = tiny_model(tmp_path / "models").directory
    asked = ["--harness", "facts,broken", "--harness-tasks", str(folder), "--model", str(model), "--harness-limit", "2"]
    assert main(["evaluate", *asked, "--out", "out.json"]) == 1
    said = capsys.readouterr().out
    assert "first 2 rows of each" in said and "! " + model.name + ": broken: " in said
    row = next(line for line in said.splitlines() if "facts" in line and "acc" in line)
    assert [part.strip() for part in row.strip("│ ").split("│")] == [
        "facts", "1.0", model.name, "1", "2", "acc", "1.0000", "0.0000",
    ]  # fmt: skip
    kept = json.loads((tmp_path / "out.json").read_text())
    assert (kept["schema"], kept["limit"], len(kept["failures"])) == (module.HARNESS_TABLE, 2, 1)
    assert kept["lines"] == [
        {
            "model": model.name, "task": "facts", "metric": "acc", "how": "none", "value": 1.0, "stderr": 0.0,
            "version": "1.0", "shots": 1, "rows": 2,
        }
    ]  # fmt: skip


def test_models_stand_together_by_metric() -> None:
    pytest.importorskip("lm_eval")
    from orchestration.comparison.harness_lines import HarnessLine
    from orchestration.pipeline.harness_models import HarnessFound

    lines = tuple(HarnessLine("t", metric, "none", 0.5, None, "1", None, None) for metric in ("acc", "f1"))
    stream = io.StringIO()
    found = HarnessFound({"a": lines, "b": lines}, {("b", "t"): 4})
    module.show_harness(found, limit=None, console=Console(stream))
    rows = [line for line in stream.getvalue().splitlines() if "0.5000" in line]
    assert [(model in row, metric in row) for row, (model, metric) in zip(
        rows, [("a", "acc"), ("b", "acc"), ("a", "f1"), ("b", "f1")], strict=True)] == [(True, True)] * 4  # fmt: skip
    assert "b: t: 4 contexts were too long and lost their beginning" in stream.getvalue()
