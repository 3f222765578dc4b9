"""Models on tasks of the harness: one that is broken costs the others nothing. Skipped where it is not installed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from harness_tasks import KnowingPool, write_harness_tasks
from task_files import tiny_model
from task_heads import save_classifier

pytest.importorskip("lm_eval")

from configs import ConfigError
from configs.models import ModelSource
from configs.schema import EngineSettings
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.pipeline.evaluate_models import Engines, Place, Subject
from orchestration.pipeline.harness_models import HarnessAsking, HarnessFound, harness_models


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> KnowingPool:
    pool = KnowingPool()
    monkeypatch.setattr(Engines, "serve", lambda *_: pool)
    return pool


def found(root: Path, asking: HarnessAsking, *models: Path) -> HarnessFound:
    (root / "logs").mkdir()
    place = Place("cpu", 0, EngineSettings(max_model_len=64), root / "models", Artifacts(root / "runs"), root / "logs")
    subjects = [Subject(each.name, "student", ModelSource(path=each), "float32") for each in models]
    return harness_models(subjects, asking, place=place, console=Console(io.StringIO()))


def test_every_task_is_put_to_every_model_and_what_is_broken_is_named(tmp_path: Path) -> None:
    folder = write_harness_tasks(tmp_path / "tasks", "facts", "broken")
    one, other = (tiny_model(tmp_path / "models", seed=seed).directory for seed in (0, 1))
    head = save_classifier(tmp_path / "head")
    got = found(tmp_path, HarnessAsking(("broken", "facts"), folder), one, head, other)
    assert {name: [line.value for line in lines] for name, lines in got.lines.items()} == {
        one.name: [1.0],
        other.name: [1.0],
    }
    assert [line.split(": ")[:2] for line in got.failures] == [
        [one.name, "broken"],
        ["head", "it has a task head and writes no text"],
        [other.name, "broken"],
    ]


def test_an_unknown_task_is_refused_before_anything_starts(tmp_path: Path, pool: KnowingPool) -> None:
    with pytest.raises(ConfigError, match="--harness absent"):
        found(tmp_path, HarnessAsking(("absent",)), tiny_model(tmp_path / "models").directory)
    assert pool.asked == []


def test_contexts_that_did_not_fit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "longest", lambda self, shape: 14)
    folder = write_harness_tasks(tmp_path / "tasks", "written")
    model = tiny_model(tmp_path / "models").directory
    got = found(tmp_path, HarnessAsking(("written",), folder), model)
    assert got.shortened == {(model.name, "written"): 3}


def test_the_chat_template_of_the_model_is_used(tmp_path: Path, pool: KnowingPool) -> None:
    folder = write_harness_tasks(tmp_path / "tasks", "written")
    files = tiny_model(tmp_path / "models")
    got = found(tmp_path, HarnessAsking(("written",), folder, chat=True, limit=1), files.directory)
    assert got.failures == []
    assert "<|assistant|>" in files.tokenizer.decode(pool.asked[0].prompt_ids)
