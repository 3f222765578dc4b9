"""Whoever asked says with which tokenizer a cache is read: a config, the runs beside it, and nobody behind a door."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import SHAPE, FakeRun, fake_run, go

from configs import dump_config
from orchestration.cache_tools import asked_caches
from orchestration.cache_tools.asked_caches import AskedCaches, find_caches

OTHER = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}


@pytest.fixture
def two(tmp_path: Path) -> FakeRun:
    """The second of two runs with a teacher each, of which the first one kept its config."""
    first = fake_run(tmp_path, teacher=OTHER)
    go(first, until="fill")
    (first.settings.directory / "resolved.yaml").write_text(dump_config(first.config))
    run = fake_run(tmp_path)
    go(run, until="fill")
    return run


def found(run: FakeRun, *, runs: bool = True) -> AskedCaches:
    return find_caches(run.config, config_dir=run.root, runs=runs)


def test_the_config_comes_first_and_runs_say_how_the_others_are_read(two: FakeRun) -> None:
    own = two.teacher().identity.digest()
    assert next(iter(found(two).tokenizers)) == own
    assert len(found(two).tokenizers) == 2 and found(two).unsearched == ()
    alone = found(two, runs=False)
    assert list(alone.tokenizers) == [own] and len(alone.unsearched) == 1


def test_runs_of_another_cache_or_version_say_nothing(two: FakeRun, tmp_path: Path) -> None:
    resolved = two.settings.directory / "resolved.yaml"
    written = resolved.read_text()
    for text in (written.replace("cache_root", "no_such_key"), written.replace("/cache_root", "/elsewhere")):
        resolved.write_text(text)
        assert len(found(two).unsearched) == 1


def test_a_run_whose_teacher_answers_elsewhere_is_not_opened(two: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_caches, "_is_elsewhere", lambda config: True)
    assert len(found(two).unsearched) == 1
