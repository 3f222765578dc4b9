"""Predictions of students: what a teacher's head would say of the same texts, in any batch and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_heads import save_classifier, save_span_finder, save_tagger
from task_students import FAMILIES, LABELS, NETWORKS, save_network, save_student, save_transformer

from configs import text_windows
from configs.errors import DataError, ModelError
from student_train.models.predicting import PredictedClass, PredictedSpan, PredictedTags, Predictor
from teacher_server.encoder import TaskHead

TEXTS = [("w1 w2 w3",), ("w4",), ("w5 w6s w7 w8ed w9 w1 w1",), ("w2",)]


def test_a_class_is_what_the_text_begins_with(tmp_path: Path) -> None:
    found = Predictor(save_classifier(tmp_path)).predict([("sun",), ("rain",), ("sun rain",)])
    assert [each.label for each in found if isinstance(each, PredictedClass)] == ["good", "bad", "good"]
    assert all(isinstance(each, PredictedClass) and 0.9 < each.probability <= 1.0 and not each.cut for each in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_are_those_of_the_teachers_head(tmp_path: Path, family: str) -> None:
    folder = save_transformer(tmp_path, family=family)
    logits = torch.from_numpy(TaskHead(folder).classify(TEXTS)).softmax(dim=-1)
    found = Predictor(folder).predict(TEXTS)
    for each, row in zip(found, logits, strict=True):
        assert isinstance(each, PredictedClass)
        assert each.label == LABELS[int(row.argmax())]
        assert each.probability == pytest.approx(float(row.max()), abs=1e-5)


@pytest.mark.parametrize("name", [*NETWORKS, "bert", "llama"])
def test_batches_and_order_change_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(save_student(tmp_path / "student", name=name))
    together = predictor.predict(TEXTS)
    turned = predictor.predict(TEXTS[::-1])[::-1]
    monkeypatch.setattr(text_windows, "BATCH_TOKENS", 1)
    for other in (turned, predictor.predict(TEXTS), [predictor.predict([text])[0] for text in TEXTS]):
        for one, two in zip(together, other, strict=True):
            assert isinstance(one, PredictedClass) and isinstance(two, PredictedClass)
            assert one.label == two.label and one.probability == pytest.approx(two.probability, abs=1e-5)


def test_a_pair_is_read_as_a_pair(tmp_path: Path) -> None:
    folder = save_transformer(tmp_path)
    pairs = [("w1 w2", "w3 w4 w5"), ("w6", "w7")]
    expected = torch.from_numpy(TaskHead(folder).classify(pairs)).softmax(dim=-1).max(dim=-1).values
    found = Predictor(folder).predict(pairs)
    assert [each.probability for each in found if isinstance(each, PredictedClass)] == pytest.approx(
        expected.tolist(), abs=1e-5
    )


def test_a_long_text_says_that_it_was_cut(tmp_path: Path) -> None:
    short, long = Predictor(save_transformer(tmp_path)).predict([("w1",), ("w1 " * 99,)])
    assert isinstance(short, PredictedClass) and isinstance(long, PredictedClass)
    assert (short.cut, long.cut) == (False, True)


def test_a_network_reads_texts_of_any_length(tmp_path: Path) -> None:
    (found,) = Predictor(save_network(tmp_path / "network", name="lstm")).predict([("w1 " * 3000,)])
    assert isinstance(found, PredictedClass) and not found.cut


def test_words_are_tagged_by_their_first_tokens_also_in_windows(tmp_path: Path) -> None:
    row = ["oslo" if at % 7 == 0 else "sunrain" for at in range(300)]
    empty, short, long = Predictor(save_tagger(tmp_path)).predict([["rain", "", "oslo"], ["sunrain"], row])
    assert isinstance(empty, PredictedTags) and isinstance(short, PredictedTags) and isinstance(long, PredictedTags)
    assert empty.tags == ("O", "O", "B-LOC") and empty.probabilities[1] is None
    assert short.tags == ("O",) and short.probabilities[0] is not None and short.probabilities[0] > 0.9
    assert long.tags == tuple("B-LOC" if at % 7 == 0 else "O" for at in range(300))


@pytest.mark.parametrize("before", [0, 200])
def test_an_answer_is_found_where_it_stands(tmp_path: Path, before: int) -> None:
    passage = "sun " * before + "rain oslo sun rome rain"
    (found,) = Predictor(save_span_finder(tmp_path)).predict([("where", passage)])
    assert isinstance(found, PredictedSpan)
    assert found.text == passage[found.start : found.end] == "oslo sun rome"
    assert 0.5 < found.probability <= 1.0


def test_spans_are_the_best_of_all_allowed_ones(tmp_path: Path) -> None:
    folder = save_transformer(tmp_path, kind="extractive_qa")
    passage = " ".join(f"w{number}" for number in (1, 5, 9, 2, 8, 8, 3, 20, 21))
    (window,) = TaskHead(folder).find_spans(["w4"], [passage])[0]
    scores = window.start[:, None] + window.end[None, :]
    scores[np.tril_indices_from(scores, -1)] = -np.inf
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    (found,) = Predictor(folder).predict([("w4", passage)])
    assert isinstance(found, PredictedSpan)
    assert (found.start, found.end) == (window.characters[int(first)][0], window.characters[int(last)][1])


def test_nothing_is_said_of_nothing(tmp_path: Path) -> None:
    assert Predictor(save_classifier(tmp_path)).predict([]) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["text"], "input 0 is a text: give every input as 1 or 2 texts, all alike"),
        ([("a", "b", "c")], "input 0 is 3 texts"),
        ([("w1",), ("w1", "w2")], "input 1 is 2 texts"),
    ],
)
def test_inputs_of_another_form_are_refused(tmp_path: Path, inputs: Any, message: str) -> None:
    predictor = Predictor(save_transformer(tmp_path))
    with pytest.raises(DataError, match=message):
        predictor.predict(inputs)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="input 1: the student's tokenizer makes no token of it: leave it out"):
        # The tokenizer of this classifier adds nothing of its own.
        Predictor(save_classifier(tmp_path / "c")).predict([("sun",), ("",)])
    with pytest.raises(ModelError, match="puts no special token between two texts"):
        Predictor(save_transformer(tmp_path / "l", family="llama")).predict([("w1", "w2")])
    with pytest.raises(ModelError, match="has no task head: name a model whose class ends with one of ForSeq"):
        Predictor(save_transformer(tmp_path / "b", kind=None))
