"""A small experiment as a file, and what is said against it."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import ConfigError, load_experiment

EXPERIMENT = """\
name: test
teacher: {model: {hub: some/model}}
data:
  train: {path: train.jsonl}
  dev: {path: dev.jsonl}
  test: {path: test.jsonl}
students:
  kd: &student
    init: {keep_layers: 2}
    stages:
      - {objective: kd, steps: 10}
  v1.5: *student
"""

TASK_EXPERIMENT = """\
name: test
task: task.yaml
teacher:
  model: {hub: some/encoder}
  prepare:
    - {objective: hard_labels, epochs: 3}
data:
  transfer: [{path: more.jsonl}]
  augment:
    rules: {kind: rules, of: [train, transfer]}
students:
  small:
    start: {kind: transformer, keep_layers: [0, 2]}
    stages:
      - {objective: logit_mse, data: [train, transfer, rules], epochs: 2}
  bag: {start: {kind: bag}, stages: [{objective: hard_labels, steps: 10}]}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT)
    return path


def complaint(path: Path, *overrides: str) -> list[str]:
    """The lines of the error that loading must end with."""
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides=overrides)
    assert "pydantic" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value).splitlines()


def one_line(path: Path, *overrides: str) -> str:
    lines = complaint(path, *overrides)
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def written_task(tmp_path: Path) -> Path:
    path = tmp_path / "task-experiment.yaml"
    path.write_text(TASK_EXPERIMENT)
    return path
