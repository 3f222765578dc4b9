"""One experiment with every kind of start and teacher: calibrated depth and width, LoRA, filters, an assistant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from cache import CacheView
from configs.architecture import read_architecture
from orchestration.comparison.report import read_results

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]

COURSE = {"steps": 4, "tokens_per_step": 400, "learning_rate": 1e-3, "dtype": "float32"}
STUDENTS = {
    "big": {
        "init": {"keep_layers": 3, "layers_by": "block_influence", "calibration_rows": 8},
        "stages": [
            COURSE | {"objective": "seqkd", "filters": {"drop_duplicates": True, "min_tokens": 12}},
            COURSE | {"objective": "kd", "divergence": {"kind": "jsd", "beta": 0.3}},
        ],
    },
    "small": {
        "init": {"keep_layers": 2, "mlp_channels": 96, "calibration_rows": 8},
        "teacher": "big",
        "stages": [COURSE | {"objective": "kd", "divergence": "skew_kl"}],
    },
    "adapted": {
        "init": {"keep_layers": 2},
        "stages": [COURSE | {"objective": "kd", "lora": {"rank": 4}, "select": "dev_kl"}],
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment's file."""
    folder = tmp_path_factory.mktemp("kinds")
    config = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    config["students"] = STUDENTS
    for split in ("train", "dev", "test"):
        config["data"][split]["path"] = str(ROOT / "configs" / config["data"][split]["path"])
    (folder / "kinds.yaml").write_text(yaml.safe_dump(config))
    return folder


def distill(place: Path, command: str, *changes: str) -> tuple[Path, str]:
    """Run the experiment; its directory and what the terminal said."""
    before = set((place / "runs").glob("tiny-*"))
    names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    values = (*(f"runtime.{key}={place / name}" for key, name in names.items()), *changes)
    arguments = [sys.executable, "-m", "orchestration", command, "--config", str(place / "kinds.yaml")]
    arguments += [part for value in values for part in ("--set", value)]
    done = subprocess.run(arguments, cwd=place, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = set((place / "runs").glob("tiny-*")) - before
    return directory, done.stdout


def test_every_kind_of_student_is_trained_and_compared(place: Path) -> None:
    directory, printed = distill(place, "run")
    assert {model.name for model in read_results(directory).models} >= {"teacher", *STUDENTS}
    _check_shapes(place)
    _check_lessons(directory, printed)
    again, said = distill(place, "train", "students.adapted.stages.0.learning_rate=0.0011")
    assert "every row is in the cache and no engine starts" in said
    assert "big now teaches; 0 rows are not in its cache." in said
    assert said.count("reused: nothing that it depends on has changed") == 3
    assert not list((again / "logs").glob("*engine*"))


def _check_shapes(place: Path) -> None:
    shapes = [read_architecture(path.parent).shape for path in (place / "runs/inits").glob("*/config.json")]
    assert sorted((shape.layers, shape.mlp) for shape in shapes) == [(2, 96), (2, 128), (3, 128)]


def _check_lessons(directory: Path, printed: str) -> None:
    views = {path.relative_to(directory / "views").as_posix(): path for path in (directory / "views").rglob("*.npz")}
    filtered = [name for name in views if name.startswith("teacher-train-")]
    plain = {"big/teacher-dev.npz", "big/teacher-train.npz", "teacher-dev.npz", "teacher-test.npz", "teacher-train.npz"}
    assert set(views) == plain | set(filtered)
    assert len(filtered) == 1
    whole, sifted = CacheView.load(views["teacher-train.npz"]), CacheView.load(views[filtered[0]])
    assert f"{len(sifted):,} sequences learned" in printed
    assert len(sifted) <= len(whole)
    assert bool((sifted.lengths - sifted.prompt_len >= 12).all())
    assert CacheView.load(views["big/teacher-train.npz"]).identity != whole.identity
    client = MlflowClient(tracking_uri=f"sqlite:///{directory.parent}/mlflow.db")
    runs = json.loads((directory / "mlflow-runs.json").read_text())
    counted = client.get_run(runs["fill"]).data.metrics
    left_out = sum(value for name, value in counted.items() if name.startswith("filters/"))
    assert left_out == len(whole) - len(sifted)
