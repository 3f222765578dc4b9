"""What a model with a task head predicts, by kind of task; kept by digest, and asked once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from task_builders import task_of
from task_files import write_task
from task_heads import save_classifier, save_span_finder, save_tagger
from task_predictors import FakePredictor

from configs import ModelError
from configs.task import TaskConfig
from evaluation.tasks.examples import Example, read_examples
from orchestration.comparison.predicted_answers import address, answers_of, predictions
from orchestration.inputs.tasks import load_task
from orchestration.outputs.artifacts import Artifacts
from student_train.models.predicting import PredictedTags, Prediction, Predictor

CLASSES = task_of("classification", labels=["good", "bad"])


def examples(task: TaskConfig, *rows: dict[str, object]) -> tuple[Example, ...]:
    return read_examples(task, list(enumerate(rows))).usable


def test_a_class_with_its_probability(tmp_path: Path) -> None:
    asked = examples(CLASSES, {"text": "sun", "label": "good"}, {"text": "rain", "label": "good"})
    found, cut = answers_of(Predictor(save_classifier(tmp_path / "model")), asked, task=CLASSES)
    assert [each.predicted for each in found] == [("good",), ("bad",)] and cut == 0
    assert [each.gold for each in found] == [("good",)] * 2 and {each.seed for each in found} == {0}
    assert all(0.9 < each.confidence < 1.0 for each in found)


def test_what_is_shown_of_a_row_is_what_a_head_reads_and_not_the_question_to_others() -> None:
    task = task_of("classification", labels=["good", "bad"], template="Of what mood is {{ text }}?")
    (found,), _ = answers_of(
        FakePredictor({"sun": "good"}), examples(task, {"text": "sun", "label": "good"}), task=task
    )
    assert found.shown == "sun"


def test_entities_with_the_probability_of_all_their_tags(tmp_path: Path) -> None:
    task = task_of("tagging", labels=["LOC"], template="{{ tokens | join(' ') }}")
    asked = examples(task, {"tokens": ["sun", "oslo"], "tags": ["O", "B-LOC"]})
    (found,), _ = answers_of(Predictor(save_tagger(tmp_path / "model")), asked, task=task)
    assert found.predicted == ("1 2 LOC",) and 0.99 < found.confidence <= 1.0

    class Unsure(FakePredictor):
        def predict(self, inputs: Sequence[Sequence[str]]) -> list[Prediction]:
            assert inputs == [("sun", "oslo")]
            return [PredictedTags(("B-LOC", "O"), (0.5, None))]

    (found,), _ = answers_of(Unsure({}, kind="tagging"), asked, task=task)
    assert (found.predicted, found.confidence) == (("0 1 LOC",), 0.5)


def test_a_span_as_it_stands(tmp_path: Path) -> None:
    task = task_of("extractive_qa", template="{{ question }} {{ context }}")
    asked = examples(task, {"question": "where", "context": "sun oslo rome rain", "answers": ["oslo rome"]})
    (found,), _ = answers_of(Predictor(save_span_finder(tmp_path / "model")), asked, task=task)
    assert found.answer == "oslo rome" and found.predicted == ("oslo rome",) and 0.9 < found.confidence <= 1


def test_labels_are_known_by_their_words_and_others_are_refused() -> None:
    task = task_of("classification", labels={"1": "one star", "2": "two stars"})
    asked = examples(task, {"text": "x", "label": "1"})
    (found,), _ = answers_of(FakePredictor({"x": "one star"}, labels=("one star", "two stars")), asked, task=task)
    assert found.predicted == ("1",)
    with pytest.raises(ModelError, match="its head knows the labels a, b, and task t has 1, 2: make id2label"):
        answers_of(FakePredictor({}, labels=("a", "b")), asked, task=task)
    with pytest.raises(ModelError, match="its head does tagging, not classification"):
        answers_of(FakePredictor({}, kind="tagging"), asked, task=task)


def test_what_is_kept_is_not_asked_again(tmp_path: Path) -> None:
    task, artifacts = load_task(write_task(tmp_path / "task")), Artifacts(tmp_path / "runs")
    opened: list[Path] = []

    def open_one(place: Path) -> FakePredictor:
        opened.append(place)
        return FakePredictor({"pie": "bad"}, cut=("fog",))

    first = predictions(tmp_path, "d" * 64, task=task, artifacts=artifacts, opened=open_one)
    assert predictions(tmp_path, "d" * 64, task=task, artifacts=artifacts, opened=open_one) == first
    assert opened == [tmp_path]
    assert [each.predicted for each in first["test"].examples] == [("bad",), ("good",), ("good",)]
    assert (first["test"].cut, first["dev"].cut, first["test"].parameters) == (1, 0, 7)
    # Another model, or another task, is asked anew.
    predictions(tmp_path, "e" * 64, task=task, artifacts=artifacts, opened=open_one)
    other = load_task(write_task(tmp_path / "other", labels={"good": "sun", "bad": "hail"}))
    predictions(tmp_path, "d" * 64, task=other, artifacts=artifacts, opened=open_one)
    assert len(opened) == 3
    assert len({address(d, t, s) for d in "de" for t in (task, other) for s in ("dev", "test")}) == 8  # type: ignore[arg-type]


def test_one_split_that_is_missing_is_made_alone(tmp_path: Path) -> None:
    task, artifacts = load_task(write_task(tmp_path / "task")), Artifacts(tmp_path / "runs")
    asked: list[int] = []

    class Counting(FakePredictor):
        def predict(self, inputs: Sequence[Sequence[str]]) -> list[Prediction]:
            asked.append(len(inputs))
            return super().predict(inputs)

    predictions(tmp_path, "d" * 64, task=task, artifacts=artifacts, opened=lambda _: Counting({}))
    (artifacts.root / "evaluations" / f"{address('d' * 64, task, 'test')[:16]}.json").unlink()
    predictions(tmp_path, "d" * 64, task=task, artifacts=artifacts, opened=lambda _: Counting({}))
    assert asked == [1, 3, 3]
