"""A whole experiment whose cache lies in a bucket, and a second one that finds everything there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from object_server import new_url, object_server

from evaluation.results import RunResults
from orchestration.comparison.report import read_results

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]


def test_two_experiments_share_a_bucket(tmp_path: Path) -> None:
    with object_server() as environment:
        url = new_url()
        first, _ = run(tmp_path, url, environment)
        assert first.cost.teacher_tokens > 0
        second, printed = run(tmp_path, url, environment, "students.kd.stages.0.learning_rate=0.00011")
        assert "every row is in the cache and no engine starts" in printed
        assert second.provenance.cache_digest == first.provenance.cache_digest
        sound = command(tmp_path, environment, "cache", "verify", "--cache-root", url, "--json")
        assert [result["damaged"] for result in json.loads(sound)] == [[]]
        tiny = ["--config", str(ROOT / "configs/tiny.yaml"), *overrides(tmp_path, url)]
        (again,) = json.loads(command(tmp_path, environment, "cache", "verify", "--rescore", "6", "--json", *tiny))
        assert (again["name"], again["rows"], again["identity"]) == ("teacher", 6, json.loads(sound)[0]["identity"])
        # The cache may differ by its quantisation and by what two live passes differ by.
        assert 0 <= again["kl"] < 1e-3 + 10 * again["control_kl"]
        assert again["top1_agreement"] > 0.9
    assert not list((tmp_path / "data").rglob("*")), "nothing of the cache lies beside the run"


def run(place: Path, url: str, environment: dict[str, str], *changes: str) -> tuple[RunResults, str]:
    """Run the tiny experiment; its results, and what the terminal said."""
    before = set((place / "runs").glob("tiny-*/report.json"))
    config = ["--config", str(ROOT / "configs/tiny.yaml"), *overrides(place, url, *changes)]
    printed = command(place, environment, "run", *config)
    (report,) = set((place / "runs").glob("tiny-*/report.json")) - before
    return read_results(report.parent), printed


def overrides(place: Path, url: str, *changes: str) -> list[str]:
    """Places of the test as arguments, and what else changes."""
    places = [
        f"runtime.cache_root={url}",
        f"runtime.run_root={place / 'runs'}",
        f"runtime.models_root={place / 'models'}",
    ]
    return [part for value in (*places, *changes) for part in ("--set", value)]


def command(place: Path, environment: dict[str, str], *arguments: str) -> str:
    """What a command prints, which has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestration", *arguments],
        cwd=place,
        env=os.environ | environment | {"STILLROOM_COPIES": str(place / "copies")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
