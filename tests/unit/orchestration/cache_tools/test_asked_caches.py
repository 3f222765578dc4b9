"""Whoever asked says with which tokenizer a cache is read: a config, the runs beside it, and nobody behind a door."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pipeline_builders import SHAPE, FakeRun, fake_run, go

from configs import dump_config, load_experiment
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


@pytest.mark.parametrize("there", [True, False])
def test_a_run_whose_model_would_be_fetched_is_not_opened(
    there: bool, two: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_caches, "is_at_hand", lambda source: there)
    assert len(found(two).unsearched) == (0 if there else 1)


def test_a_run_whose_teacher_answers_elsewhere_is_not_asked_who_it_is(two: FakeRun, tmp_path: Path) -> None:
    resolved = tmp_path / "run_root" / "fake-run" / "resolved.yaml"
    written = yaml.safe_load(resolved.read_text())
    written["teacher"]["serve"] = {"url": "https://nowhere.example:8100"}
    resolved.write_text(yaml.safe_dump(written))
    assert load_experiment(resolved).teacher.elsewhere is not None
    assert len(found(two).unsearched) == 1
