"""Whole experiments with students of another tokenizer: by text, by the likelihood of chunks, by rank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from other_tokenizers import ascii_teacher, byte_level, other_model

from orchestration.comparison.report import read_results
from orchestration.outputs.curves import read_curve
from student_train.feed.retokenised import Retokenised

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]

COURSE = {"steps": 4, "tokens_per_step": 400, "learning_rate": 1e-3, "dtype": "float32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment's file, a teacher that writes letters, and a student that joins some of them."""
    folder = tmp_path_factory.mktemp("others")
    config = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    ascii_teacher(folder / "teacher")
    other_model(folder / "other", byte_level(merges=40), layers=2, positions=512)
    config["teacher"]["model"] = {"path": str(folder / "teacher")}
    for split in ("train", "dev", "test"):
        config["data"][split]["path"] = str(ROOT / "configs" / config["data"][split]["path"])
    init = {"model": {"path": str(folder / "other")}}
    config["students"] = {
        "spans": {"init": init, "stages": [COURSE | {"objective": "seqkd"}, COURSE | {"objective": "span_likelihood"}]},
        "ranks": {"init": init, "stages": [COURSE | {"objective": "uld", "ce_weight": 0.667}]},
    }
    (folder / "others.yaml").write_text(yaml.safe_dump(config))
    return folder


def distill(place: Path, command: str, *changes: str) -> str:
    names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    values = (*(f"runtime.{key}={place / name}" for key, name in names.items()), *changes)
    arguments = [sys.executable, "-m", "orchestration", command, "--config", str(place / "others.yaml")]
    arguments += [part for value in values for part in ("--set", value)]
    done = subprocess.run(arguments, cwd=place, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def test_students_of_another_tokenizer_go_all_the_way(place: Path) -> None:
    planned = distill(place, "plan")
    assert planned.count("has another tokenizer than the teacher and learns by text") == 2
    printed = distill(place, "run")
    (directory,) = (place / "runs").glob("tiny-*")
    rows = {row.name: row for row in read_results(directory).models}
    assert set(rows) == {"teacher", "untouched", "spans", "ranks"}
    for name in ("untouched", "spans", "ranks"):
        closeness = rows[name].closeness
        assert rows[name].failures == () and len(rows[name].answers) == 8 and rows[name].serving is not None
        assert closeness is not None and "rouge_l" in closeness.columns and "forward_kl" not in closeness.columns
    assert "divergences, agreement and perplexity at the teacher's answers are not measurable" in printed
    assert (directory / "report.md").exists()
    for view in (directory / "views").glob("*.safetensors"):
        assert len(Retokenised.load(view)) == (24 if "train" in view.name else 8)
    curves = [list(read_curve(path)) for path in (place / "runs/students").glob("*/curves.jsonl")]
    assert len(curves) == 3
    for curve in curves:
        dev = [point.values["dev/loss"] for point in curve if "dev/loss" in point.values]
        assert dev[-1] < dev[0]
    # What was trained is not trained again, and the teacher is asked nothing.
    again = distill(place, "train", "students.ranks.stages.0.learning_rate=0.0011")
    assert again.count("reused: nothing that it depends on has changed") == 2
    assert "every row is in the cache and no engine starts" in again
