"""What the door is told of teachers with a task head before an engine starts (whole: tests/slow/test_serve_signals.py)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from task_files import tiny_model, write_task
from task_heads import POSITIONS, WORDS, save_classifier

from configs import ConfigError, ModelError, load_experiment
from configs.task_experiment import TaskDistillConfig
from orchestration.cluster.serving_door import ServedWords
from orchestration.cluster.serving_signals import ServedHead
from orchestration.commands.serve import behind_door, ready_to_serve, tuned_teachers
from orchestration.plan.hardware import Hardware, HostMemory
from teacher_server.heads import RESERVED_POSITIONS

HERE = Hardware("cpu", cpus=2, memory=HostMemory(16.0, 16.0))
PREPARE = [{"objective": "hard_labels", "steps": 1}]


def experiment(
    root: Path, *, task: Mapping[str, Any] = {}, more: Mapping[str, Any] = {}, **teacher: Any
) -> TaskDistillConfig:
    """A task of moods, and a teacher that knows them."""
    write_task(root, **task)
    said = {
        "name": "moods",
        "task": "task.yaml",
        "teacher": {"model": {"path": str(save_classifier(root / "model"))}, "max_tokens": 16} | teacher,
        "students": {"s": {"start": {"kind": "bag"}, "stages": PREPARE}},
        "runtime": {name: str(root / name) for name in ("models_root", "cache_root", "run_root")},
    } | more
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
        (
            {"answers": "text"},
            ConfigError,
            r"^teacher\.answers=text is an answer that is written: .*teacher\.answers: labels",
        ),
        ({"answers": "labels"}, ModelError, "has a head for classification and writes no text"),
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


def in_words(root: Path, *, task: Mapping[str, Any] = {}, more: Mapping[str, Any] = {}, **teacher: Any) -> ServedWords:
    """A task of moods whose teacher is a tiny language model."""
    model = {"path": str(tiny_model(root / "models").directory)}
    engine = {"max_model_len": 64, "count": 1, "cpus": 1}
    roots = {name: str(root / name) for name in ("models_root", "cache_root", "run_root")}
    more = {"runtime": {**roots, "teacher_engine": engine}} | more
    said = {"model": model, "answers": "labels", "max_tokens": 16} | teacher
    config = experiment(root, task=task, more=more, **said)
    [(name, served)] = behind_door(config, hardware=HERE, log_dir=root).items()
    assert name == "teacher" and isinstance(served, ServedWords)
    return served


def test_a_language_model_is_served_by_the_words_of_labels(tmp_path: Path) -> None:
    served = in_words(tmp_path, licence="mit")
    facts, model = served.facts, served.model
    assert (facts.gives, facts.labels, facts.layers, facts.hidden) == ("class_logits", ("good", "bad"), 0, 0)
    assert facts.label.endswith("by label likelihood per token") and facts.vocab == model.spec.vocab
    # " rain" is the longest label, five tokens of bytes; a score is read from one more.
    assert facts.max_tokens == 64 - 5 - 1
    assert model.spec.identity == model.facts.identity and model.terms.most_k == 1
    assert (model.terms.licence, model.terms.encoding) == ("mit", "topk-f16")
    # Who gives the classes is the model and the words.
    differing = {name for name, value in asdict(facts.identity).items() if value != asdict(model.spec.identity)[name]}
    assert differing == {"adapter_sha256"}
    # It goes to the process of the door.
    text = pickle.loads(pickle.dumps(served)).reader.question("tea", None)
    assert model.spec.vocab and text == served.reader.question("tea", None)


def test_other_words_or_another_scale_are_another_teacher(tmp_path: Path) -> None:
    settings: dict[str, dict[str, Any]] = {
        "as it is": {},
        "calibrated": {"calibrated": True},
        "words": {"task": {"labels": {"good": "sun", "bad": "storm"}}},
        "whole": {"task": {"label_scoring": {"per_token": False}}},
    }
    made = {name: in_words(tmp_path / name.replace(" ", "-"), **each) for name, each in settings.items()}
    assert len({each.facts.identity.digest() for each in made.values()}) == len(settings)
    assert len({each.model.spec.identity.digest() for each in made.values()}) == 1
    assert len(made["calibrated"].reader.content_free) == 3


def test_a_question_of_more_than_a_text_is_not_asked_at_a_door(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.answers=labels at a door: the template of task moods reads"):
        in_words(tmp_path / "a", task={"template": "{{ text }} {{ mood }} is"})
    context = {"teacher_context": {"neighbours": {"before": 1}}}
    with pytest.raises(ConfigError, match="teacher_context shows the teacher more than a text"):
        in_words(tmp_path / "b", more=context)


def test_a_teacher_that_is_still_to_be_tuned_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    experiment(tmp_path, prepare=PREPARE)
    written = load_experiment(tmp_path / "moods.yaml")
    with pytest.raises(
        ConfigError, match=r"^teacher\.prepare tunes .* distill fill \(or run\) this configuration first"
    ):
        tuned_teachers(written, config_dir=tmp_path)


def test_a_tuned_teacher_is_served_from_where_it_was_tuned(tmp_path: Path) -> None:
    tuned = save_classifier(tmp_path / "tuned")
    config = experiment(tmp_path, prepare=PREPARE)
    [served] = behind_door(config, hardware=HERE, log_dir=tmp_path, prepared={"teacher": tuned}).values()
    assert isinstance(served, ServedHead) and served.spec.model_dir == tuned.resolve()


def test_a_door_of_a_task_does_not_lead_to_another_door(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^teacher answers behind teacher\.example: .* remove teacher\.serve"):
        experiment(tmp_path, serve="https://teacher.example")
