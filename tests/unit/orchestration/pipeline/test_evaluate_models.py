"""Models on tasks: each in its own way, and what is broken costs the others nothing."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from task_files import SpeakingPool, candidate_of, tiny_model, write_task
from task_heads import save_classifier

from configs.models import ModelSource
from configs.schema import EngineSettings
from evaluation.results import DevScores, FinalScores
from orchestration.inputs.tasks import LoadedTask, load_task
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.pipeline import evaluate_models as module
from orchestration.pipeline.evaluate_models import Engines, Found, Place, Subject, evaluate_models


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models that engines were asked to serve; they all say "sun"."""
    names: list[str] = []

    def serve(self: Engines, candidate: Any, files: Any, *, asked: int) -> Any:
        names.append(candidate.name)
        return SpeakingPool(lambda prompt, seed: "sun")

    monkeypatch.setattr(Engines, "serve", serve)
    return names


def place(root: Path) -> Place:
    return Place("cpu", 0, EngineSettings(), root / "models", Artifacts(root / "runs"), root / "logs")


def evaluated(root: Path, subjects: list[Subject], tasks: list[LoadedTask], split: Any = FinalScores) -> Found[Any]:
    console = Console(io.StringIO())
    return evaluate_models(subjects, tasks, split=split, place=place(root), console=console)


def subject(name: str, directory: Path) -> Subject:
    return Subject(name, "student", ModelSource(path=directory), "float32")


def test_a_decoder_answers_by_an_engine_and_a_head_by_itself(tmp_path: Path, served: list[str]) -> None:
    task = load_task(write_task(tmp_path / "task"))
    decoder = subject("decoder", tiny_model(tmp_path / "models").directory)
    head = subject("head", save_classifier(tmp_path / "head", labels=("good", "bad")))
    found = evaluated(tmp_path, [decoder, head], [task])
    assert {key: scores.answered_by for key, scores in found.scores.items()} == {
        ("decoder", "moods"): "text",
        ("head", "moods"): "head",
    }
    assert (served, found.failures) == (["decoder"], [])


def test_what_was_found_before_starts_no_engine(tmp_path: Path, served: list[str]) -> None:
    task = load_task(write_task(tmp_path / "task"))
    decoder = subject("decoder", tiny_model(tmp_path / "models").directory)
    first = evaluated(tmp_path, [decoder], [task])
    # As text, for a NaN is unlike itself.
    assert repr(evaluated(tmp_path, [decoder], [task]).scores) == repr(first.scores)
    assert served == ["decoder"]
    dev = evaluated(tmp_path, [decoder], [task], DevScores)
    assert [type(each) for each in dev.scores.values()] == [DevScores]
    assert served == ["decoder", "decoder"]


def test_what_is_broken_is_named_and_costs_the_others_nothing(tmp_path: Path, served: list[str]) -> None:
    fine = load_task(write_task(tmp_path / "fine"))
    tags = load_task(
        write_task(
            tmp_path / "tags", called="tags", kind="tagging", labels=["LOC"], answer=None,
            rows={"test": [{"tokens": ["a"], "tags": ["O"]}]}, data={"test": {"path": "test.jsonl"}},
            fields={"tokens": "tokens", "tags": "tags"}, template="{{ tokens | join(' ') }}",
        )
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    subjects = [
        subject("empty", tmp_path / "empty"),
        subject("head", save_classifier(tmp_path / "head")),
        subject("decoder", tiny_model(tmp_path / "models").directory),
    ]
    found = evaluated(tmp_path, subjects, [fine, tags])
    assert set(found.scores) == {("head", "moods"), ("decoder", "moods"), ("decoder", "tags")}
    assert [line.partition(": ")[0] for line in found.failures] == ["empty", "head"]
    assert found.failures[1] == "head: task tags: its head does classification, not tagging: name another model or task"


def test_engines_are_kept_for_models_of_one_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Pool:
        def __init__(self, spec: Any) -> None:
            told.append(f"start {spec.settings.max_model_len}")

        def load(self, directory: Path, identity: Any) -> None:
            told.append("load")

        def release(self) -> None:
            told.append("release")

    class Cluster:
        def __enter__(self) -> None:
            told.append("cluster")

        def __exit__(self, *_: Any) -> None:
            told.append("end")

    monkeypatch.setattr(module, "EnginePool", Pool)
    monkeypatch.setattr(module, "cluster", lambda *, address, gpus: Cluster())
    files = tiny_model(tmp_path)
    with module.engines_at(place(tmp_path)) as engines:
        engines.serve(candidate_of(files), files)
        engines.serve(candidate_of(files, name="other"), files)
    # The model reads 256 tokens, fewer than the engine's setting.
    assert told == ["cluster", "start 256", "load", "load", "release", "end"]


def test_an_engine_reads_as_much_as_is_asked_and_the_model_can(tmp_path: Path) -> None:
    short = replace(place(tmp_path), engine=EngineSettings(max_model_len=100))
    shape = tiny_model(tmp_path).shape
    assert [short.longest(shape, asked=asked) for asked in (0, 99, 200, 999)] == [100, 100, 200, 256]
