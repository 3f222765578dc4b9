"""What the door is told of teachers with a task head before an engine starts (whole: tests/slow/test_serve_signals.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from task_files import write_task
from task_heads import POSITIONS, WORDS, save_classifier

from configs import ConfigError, ModelError, load_experiment
from configs.task_experiment import TaskDistillConfig
from orchestration.cluster.serving_signals import ServedHead
from orchestration.commands.serve import behind_door, ready_to_serve
from orchestration.plan.hardware import Hardware, HostMemory
from teacher_server.encoder import RESERVED_POSITIONS

HERE = Hardware("cpu", cpus=2, memory=HostMemory(16.0, 16.0))
PREPARE = [{"objective": "hard_labels", "steps": 1}]


def experiment(root: Path, **teacher: Any) -> TaskDistillConfig:
    """A task of moods, and a teacher that knows them."""
    write_task(root)
    said = {
        "name": "moods",
        "task": "task.yaml",
        "teacher": {"model": {"path": str(save_classifier(root / "model"))}, "max_tokens": 16} | teacher,
        "students": {"s": {"start": {"kind": "bag"}, "stages": PREPARE}},
        "runtime": {name: str(root / name) for name in ("models_root", "cache_root", "run_root")},
    }
    (root / "moods.yaml").write_text(yaml.safe_dump(said))
    config = ready_to_serve(load_experiment(root / "moods.yaml"), config_dir=root)
    assert isinstance(config, TaskDistillConfig)
    return config


def test_a_head_is_served_as_it_is_asked_in_a_fill(tmp_path: Path) -> None:
    config = experiment(tmp_path, licence="mit", encoding="signal-f16")
    [(name, served)] = behind_door(config, hardware=HERE, log_dir=tmp_path).items()
    assert name == "teacher" and isinstance(served, ServedHead)
    facts, terms = served.facts, served.terms
    assert (facts.gives, facts.labels, facts.vocab) == ("class_logits", ("good", "bad"), len(WORDS))
    # What an experiment cuts its texts to is its own affair.
    assert facts.max_tokens == POSITIONS - RESERVED_POSITIONS
    assert (terms.licence, terms.encoding, served.spec.identity) == ("mit", "signal-f16", facts.identity)
    assert terms.provenance["dataset"] and served.cache_root == tmp_path / "cache_root"
    assert len({each.token_ids for each in served.check}) == 2 and len(served.check) == 8


@pytest.mark.parametrize(
    ("teacher", "error", "reason"),
    [
        ({"answers": "labels"}, ConfigError, r"^teacher\.answers=labels: a language model is served by"),
        ({"prepare": PREPARE}, ConfigError, r"^teacher\.prepare tunes the teacher within a run"),
        ({"max_tokens": 1000}, ConfigError, "max_tokens=1000"),
    ],
)
def test_a_teacher_that_does_not_answer_as_it_stands_is_refused(
    tmp_path: Path, teacher: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        behind_door(experiment(tmp_path, **teacher), hardware=HERE, log_dir=tmp_path)


def test_a_teacher_of_another_task_or_too_large_is_refused(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    small = Hardware("gpu", nodes=1, gpus_per_node=1, gpu_memory_gib=0.01)
    with pytest.raises(ConfigError, match="GiB"):
        behind_door(config, hardware=small, log_dir=tmp_path)
    save_classifier(tmp_path / "model", labels=("dull", "bright"))
    with pytest.raises(ModelError, match="has the labels dull, bright"):
        behind_door(config, hardware=HERE, log_dir=tmp_path)
