"""What stands behind a run, where caches are of several teachers, of none that is here, or of one that nobody can hash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from descended import descended

from cache.identity import RemoteTeacherIdentity
from configs import load_experiment
from configs.places import RESOLVED
from configs.screening import ContentConfig
from orchestration.lineage.behind_run import _guard, _teacher, behind_run
from orchestration.lineage.records import FILE


def test_without_a_cache_it_is_missing_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    made = descended(tmp_path)
    shutil.rmtree(made.cache)
    steps = list(behind_run(made.run, learned=_learned(made.run), wanted=()))
    assert [(step.what, step.state) for step in steps if step.what in ("run", "cache", "teacher")] == [
        ("run", "holds"),
        ("cache", "missing"),
    ]


def test_a_run_of_an_earlier_version_says_so_and_its_cache_is_read(tmp_path: Path) -> None:
    made = descended(tmp_path)
    (made.run / FILE).unlink()
    steps = {step.what: step.state for step in behind_run(made.run, learned=_learned(made.run), wanted=())}
    assert (steps["run"], steps["cache"], steps["teacher"]) == ("missing", "holds", "holds")


def test_rows_that_left_the_cache_are_named(tmp_path: Path) -> None:
    made = descended(tmp_path)
    for manifest in made.cache.rglob("manifests/*"):
        manifest.unlink()
    broken = [step.says for step in behind_run(made.run, learned=_learned(made.run), wanted=())]
    assert any("teacher-train" in line and "have left it" in line for line in broken)


def test_a_teacher_that_nobody_can_hash_is_only_told(tmp_path: Path) -> None:
    made = descended(tmp_path)
    config = load_experiment(made.run / RESOLVED)
    step = _teacher(RemoteTeacherIdentity("somebody", "large", "3"), config, run=made.run)
    assert (step.state, step.says) == ("said", "large of somebody, whose weights nobody can hash")


def test_a_guard_is_told_with_its_licence(tmp_path: Path) -> None:
    config = load_experiment(descended(tmp_path).run / RESOLVED)
    assert list(_guard(config)) == []
    guard = {"model": {"path": str(tmp_path)}, "unsafe": ["unsafe"], "safe": ["safe"]}
    for licence, expected in ((None, "not stated"), ("llama3.1", "llama3.1")):
        content = ContentConfig.model_validate({"guard": guard | {"licence": licence}})
        [step] = _guard(config.model_copy(update={"content": content}))
        assert (step.what, step.state) == ("guard", "said") and f"licence {expected}: it judged" in step.says


def _learned(run: Path) -> dict[str, str]:
    summary = next((run.parent / "students").glob("*/stillroom.json"))
    learned: dict[str, str] = json.loads(summary.read_text())["lineage"]["learned"]
    return learned
