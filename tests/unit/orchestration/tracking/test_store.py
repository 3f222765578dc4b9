"""Where runs are tracked, whatever the name of the run root."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from configs import DistillConfig, load_config
from orchestration.tracking.store import remove_stray_directory, sqlite_uri, tracking_uri
from orchestration.tracking.tracker import Tracker

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"


def config(**runtime: str) -> DistillConfig:
    return load_config(TINY, overrides=[f"runtime.{name}={value}" for name, value in runtime.items()])


def test_a_store_that_is_named_is_used(tmp_path: Path) -> None:
    assert tracking_uri(config(tracking_uri="http://127.0.0.1:5000")) == "http://127.0.0.1:5000"


def test_without_one_it_lies_below_the_run_root_by_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(config(run_root="my runs")) == f"sqlite:///{tmp_path}/my runs/mlflow.db"


def test_what_means_something_in_a_uri_is_escaped() -> None:
    assert sqlite_uri(Path("/a%b/c?d/mlflow.db")) == "sqlite:////a%25b/c%3Fd/mlflow.db"


def test_a_directory_of_the_undecoded_name_goes_again(tmp_path: Path) -> None:
    stray = tmp_path / "100%25"
    with remove_stray_directory(sqlite_uri(tmp_path / "100%" / "mlflow.db")):
        stray.mkdir()
    assert not stray.exists()


def test_a_directory_that_was_there_or_is_used_stays(tmp_path: Path) -> None:
    there = tmp_path / "100%25"
    uri = sqlite_uri(tmp_path / "100%" / "mlflow.db")
    with remove_stray_directory(uri):
        there.mkdir()
        (there / "file").touch()
    assert there.exists()
    (there / "file").unlink()
    with remove_stray_directory(uri):
        pass
    assert there.exists()


@pytest.mark.parametrize("name", ["100%25 #", "a%3Fb?c"])
def test_the_default_store_lies_in_the_run_root_whatever_its_name(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    run_dir = root / "tiny"
    run_dir.mkdir(parents=True)
    report = run_dir / "report.md"
    report.write_text("# done")
    tracker = Tracker(run_dir, uri=sqlite_uri(root / "mlflow.db"))
    tracker.start("tiny", params={}, tags={})
    tracker.artifact("pipeline", report)
    tracker.close()
    assert not (run_dir / "mlflow-spool.jsonl").exists()
    with sqlite3.connect(f"file:{sqlite3_path(root / 'mlflow.db')}?mode=ro", uri=True) as database:
        assert database.execute("select name from runs").fetchall() == [("tiny",)]
    assert [path.read_text() for path in (root / "mlartifacts").rglob("report.md")] == ["# done"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def sqlite3_path(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
