"""Experiments whose students learn from inside their teacher, with a real encoder that answers in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_pipeline_builders import STAGE, TaskPlace, task_place

from cache import TeacherCache
from configs import ConfigError, ModelError
from orchestration.cache_tools.actions import teachers
from student_train.feed.examples import ExampleSet

HEAD = {"kind": "hidden_mse", "layers": "top", "place": "first"}


def place_of(root: Path, start: dict[str, Any], *features: dict[str, Any], **stage: Any) -> TaskPlace:
    place = task_place(root)
    place.values["students"] = {"small": {"start": start, "stages": [STAGE | {"features": list(features)} | stage]}}
    place.values["evaluation"] = {"gold_baseline": False}
    return place


def test_states_are_asked_once_and_lie_beside_the_examples(tmp_path: Path) -> None:
    bag = {"kind": "bag", "embedding_size": 4}
    place = place_of(tmp_path, bag, HEAD, {"kind": "hidden_mse", "layers": [[1, 0]], "place": "mean"})
    place.go("train")
    (job,) = place.workers.jobs
    train, dev = (ExampleSet.load(path) for path in (job.train_examples, job.dev_examples))
    assert train.state_names == dev.state_names == ((1, "first"), (0, "mean"))
    assert train.states is not None and train.states.shape == (9, 2, 16)
    assert job.taught is not None and job.taught.sizes.widths == (16, 16)
    (found,) = teachers(tmp_path / "cache", left_out=lambda reason: None)
    cache = TeacherCache.open(tmp_path / "cache", found.identity, create=False)
    assert cache.stats().signals == 3 * (9 + 2), "logits and two states of every text, each once"
    # What the model says, a state at a time.
    np.testing.assert_allclose(train.states[:, 0].mean(axis=1), 0.0, atol=1e-5, err_msg="a layer norm came before")
    place.called.clear()
    place.values["students"]["small"]["stages"][0]["features"] = [HEAD]
    place.go("train")
    assert not any(call.startswith("fill") for call in place.called), "a second experiment runs no teacher"
    assert ExampleSet.load(place.workers.jobs[-1].train_examples).state_names == ((1, "first"),)


def test_what_is_learned_from_inside_addresses_the_student(tmp_path: Path) -> None:
    start = {"kind": "transformer", "keep_layers": 1}
    place = place_of(tmp_path, start, {"kind": "cosine"})
    first = place.go("train").students
    place.values["students"]["small"]["stages"][0]["features"] = [{"kind": "cosine", "weight": 2.0}]
    other = place.go("train").students
    assert first is not None and other is not None
    assert first.chains["small"][0].digest != other.chains["small"][0].digest
    job = place.workers.jobs[-1]
    assert job.taught is not None and job.taught.directory == (tmp_path / "teacher").resolve()
    assert ExampleSet.load(job.train_examples).states is None, "a teacher that reads beside the student keeps nothing"


def test_only_inside_is_learned_where_no_answer_is(tmp_path: Path) -> None:
    place = place_of(tmp_path, {"kind": "bag", "embedding_size": 4}, HEAD, objective="features", select="dev_loss")
    place.go("train")
    examples = ExampleSet.load(place.workers.jobs[0].train_examples)
    assert examples.teacher is None and examples.states is not None and len(examples) == 9


def test_the_same_student_without_a_teacher_has_no_features(tmp_path: Path) -> None:
    place = place_of(tmp_path, {"kind": "bag", "embedding_size": 4}, HEAD)
    place.values["evaluation"] = {"gold_baseline": True}
    place.go("train")
    gold = place.workers.jobs[-1]
    assert gold.stage.objective == "hard_labels" and not gold.stage.features and gold.taught is None


def test_what_cannot_be_matched_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    place = place_of(tmp_path, {"kind": "bag", "embedding_size": 4}, {"kind": "patient", "layers": "top"})
    with pytest.raises(ConfigError, match=r"students\.small\.stages\.0\.features\.0: patient compares states of one"):
        place.go("train")
    assert place.called == []


def test_another_tokenizer_cannot_read_the_same_tokens(tmp_path: Path) -> None:
    own = tmp_path / "own"
    place = place_of(tmp_path, {"kind": "transformer", "model": {"path": str(own)}}, {"kind": "cosine"})
    shutil.copytree(tmp_path / "teacher", own)
    words = json.loads((own / "tokenizer.json").read_text())
    words["model"]["vocab"] = {f"{word}s": at for word, at in words["model"]["vocab"].items()}
    words["model"]["unk_token"] = "[UNK]s"
    (own / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(
        ConfigError, match=r"students\.small learns from a teacher that reads beside it, .*another tokenizer"
    ):
        place.go("train")


def test_attention_of_its_own_is_refused_by_the_config_alone(tmp_path: Path) -> None:
    place = place_of(tmp_path, {"kind": "transformer", "keep_layers": 1}, {"kind": "attention_mse"})
    config = json.loads((tmp_path / "teacher/config.json").read_text())
    config |= {"model_type": "mpnet", "architectures": ["MPNetForSequenceClassification"]}
    (tmp_path / "teacher/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="mpnet computes attention in a way of its own"):
        place.go("train")
