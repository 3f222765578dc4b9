"""A teacher with a task head is known by its files, and one that cannot teach the task is refused before it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from task_builders import task_of
from task_heads import POSITIONS, save_classifier, save_span_finder, save_tagger
from transformers import AutoModel, BertConfig, BertModel

from configs import ConfigError, ModelError
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.task_teachers import TaskTeacher, open_task_cache, open_task_teacher
from orchestration.inputs.task_texts import decision_labels

FAULTS = task_of("classification", labels={"good": "fine", "bad": "poor"})
PLACES = task_of("tagging", labels=["LOC"])
ANSWERS = task_of("extractive_qa")

PREPARE = [{"objective": "hard_labels", "steps": 1}]


def config(model_dir: Path, **teacher: Any) -> TaskDistillConfig:
    return TaskDistillConfig.model_validate(
        {
            "name": "t",
            "task": "tasks/faults.yaml",
            "teacher": {"model": {"path": model_dir}, "max_tokens": 32} | teacher,
            "students": {"s": {"start": {"kind": "bag"}, "stages": PREPARE}},
            "runtime": {"models_root": model_dir.parent / "models", "cache_root": model_dir.parent / "cache"},
        }
    )


def opened(model_dir: Path, task: TaskConfig, **teacher: Any) -> TaskTeacher:
    return open_task_teacher(config(model_dir, **teacher), task)


def headless(place: Path) -> Path:
    save_classifier(place)
    shape = BertConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16,
        max_position_embeddings=POSITIONS,
    )  # fmt: skip
    BertModel(shape).save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(AutoModel, "from_pretrained", refuse)


@pytest.mark.parametrize(
    ("labels", "columns"),
    [(("good", "bad"), (0, 1)), (("bad", "good"), (1, 0)), (("Poor", "fine"), (1, 0))],
)
def test_a_permutation_of_the_labels_is_fine(labels: tuple[str, ...], columns: tuple[int, ...], tmp_path: Path) -> None:
    assert opened(save_classifier(tmp_path / "m", labels=labels), FAULTS).columns == columns


def test_tags_have_their_columns_and_spans_their_ends(tmp_path: Path) -> None:
    tagger = opened(save_tagger(tmp_path / "tags", labels=("I-LOC", "O", "B-LOC")), PLACES)
    assert [("I-LOC", "O", "B-LOC")[at] for at in tagger.columns] == list(decision_labels(PLACES))
    assert opened(save_span_finder(tmp_path / "spans"), ANSWERS).columns == (0, 1)


@pytest.mark.parametrize(
    ("save", "task", "says"),
    [
        (headless, FAULTS, "has no task head, and task t is classification: name a model .* teacher.prepare"),
        (save_tagger, FAULTS, "has a head for tagging, and task t is classification"),
        (save_classifier, ANSWERS, "has a head for classification, and task t is extractive_qa"),
        (
            lambda place: save_classifier(place, labels=("good", "ugly")),
            FAULTS,
            "has the labels good, ugly, and task t has good, bad: make id2label",
        ),
        (
            lambda place: save_classifier(place, labels=("good", "bad", "ugly")),
            FAULTS,
            "has the labels good, bad, ugly, and task t has good, bad:",
        ),
        (save_tagger, PLACES, "has the labels O, B-LOC, and task t has O, B-LOC, I-LOC"),
    ],
)
def test_a_model_that_cannot_teach_the_task_is_refused_in_one_line(
    save: Any, task: TaskConfig, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says) as refused:
        opened(save(tmp_path / "m"), task)
    assert "\n" not in str(refused.value)


def test_a_teacher_that_is_still_to_be_prepared_may_have_no_head_and_then_has_the_tasks(tmp_path: Path) -> None:
    bare = headless(tmp_path / "bare")
    assert opened(bare, FAULTS, prepare=PREPARE).columns == (0, 1)
    made = save_classifier(tmp_path / "made")
    prepared = open_task_teacher(config(bare, prepare=PREPARE), FAULTS, prepared=made)
    assert prepared.directory == made
    assert prepared.identity == opened(made, FAULTS).identity
    with pytest.raises(ModelError, match="no task head"):
        open_task_teacher(config(bare, prepare=PREPARE), FAULTS, prepared=bare)


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (
            save_tagger,
            "has a head for tagging, and teacher.prepare tunes one for task t, classification with good, bad",
        ),
        (
            lambda place: save_classifier(place, labels=tuple(f"l{at}" for at in range(10))),
            r"a head with the labels l0, .*l7 and 2 more, and teacher.prepare tunes one for task t, .*: name a model",
        ),
    ],
)
def test_a_head_for_something_else_is_not_tuned(save: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        opened(save(tmp_path / "m"), FAULTS, prepare=PREPARE)
    turned = save_classifier(tmp_path / "turned", labels=("bad", "good"))
    assert opened(turned, FAULTS, prepare=PREPARE).columns == (0, 1)


def test_the_identity_is_that_of_weights_labels_and_dtype(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "m")
    first = opened(model, FAULTS).identity
    assert (first.dtype, first.quantization) == ("float32", None)
    assert opened(model, FAULTS, dtype="bfloat16").identity != first
    copied = Path(shutil.copytree(model, tmp_path / "copy"))
    assert opened(copied, FAULTS).identity == first
    raw = json.loads((copied / "config.json").read_text())
    raw["id2label"] = {"0": "bad", "1": "good"}
    (copied / "config.json").write_text(json.dumps(raw))
    assert opened(copied, FAULTS).identity.config_sha256 != first.config_sha256
    assert opened(copied, FAULTS).identity.weights_sha256 == first.weights_sha256


def test_longer_texts_than_the_model_reads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher.max_tokens=63 and .* reads 62 tokens: lower it"):
        opened(save_classifier(tmp_path / "m"), FAULTS, max_tokens=63)


def test_its_cache_says_where_its_rows_come_from(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "m")
    teacher = opened(model, FAULTS)
    said = teacher.provenance(config(model))
    assert (said["max_tokens"], said["dataset"], said["model"]) == ("32", "tasks/faults.yaml", str(model))
    assert {"tokenizer", "transformers", "stillroom"} < set(said)
    assert open_task_cache(config(model), teacher).identity == teacher.identity
    assert teacher.model.block_weights == 4 * 16**2 + 2 * 16 * 16
