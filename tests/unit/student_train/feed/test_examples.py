from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_examples import classification, spans

from configs import DataError
from student_train.feed.examples import ExampleSet


@pytest.mark.parametrize("examples", [classification(), classification(teacher=None), spans()])
def test_examples_come_back_as_they_were_saved(examples: ExampleSet, tmp_path: Path) -> None:
    examples.save(tmp_path / "lessons/train.safetensors")
    again = ExampleSet.load(tmp_path / "lessons/train.safetensors")
    assert (again.digest, again.kind, again.labels) == (examples.digest, examples.kind, examples.labels)
    for name in ("token_ids", "token_offsets", "split", "unit_offsets", "unit_tokens", "gold", "teacher"):
        np.testing.assert_array_equal(getattr(again, name), getattr(examples, name))


def test_decisions_are_texts_words_or_both_ends_of_a_span() -> None:
    assert classification().decision_offsets.tolist() == [0, 1, 2, 3]
    assert spans().decision_offsets.tolist() == [0, 2, 4]
    tags = classification(
        kind="tagging",
        unit_offsets=np.array([0, 2, 3, 6]),
        unit_tokens=np.array([0, 2, 1, 0, 1, 3], np.int32),
        gold=np.array([0, 1, 2, 0, 0, 1], np.int32),
        teacher=None,
    )
    assert tags.decision_offsets.tolist() == [0, 2, 3, 6]
    assert tags.lengths.tolist() == [3, 2, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("a", "b", "d")},
        {"split": np.array([3, 2, 4], np.int32)},
        {"gold": np.array([0, 1, -1], np.int32)},
        {"teacher": None},
        {"token_ids": np.arange(1, 10, dtype=np.int32)},
    ],
)
def test_whatever_is_learned_is_in_the_digest(change: dict[str, Any]) -> None:
    assert classification(**change).digest != classification().digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_offsets": np.array([0, 3, 5, 8])}, "token_offsets do not lead"),
        ({"token_offsets": np.array([0, 5, 3, 9])}, "token_offsets do not lead"),
        ({"token_offsets": np.array([0, 5, 5, 9])}, "no tokens"),
        ({"unit_offsets": np.array([0, 0, 2, 3])}, "has not one unit"),
        ({"split": np.array([3, 3, 4], np.int32)}, "a split lies outside"),
        ({"unit_tokens": np.array([0, 2, 0], np.int32)}, "stands at no token"),
        ({"gold": np.array([0, 3, 1], np.int32)}, "not among the choices"),
        ({"gold": np.array([0, -2, 1], np.int32)}, "not among the choices"),
        ({"gold": np.array([0, 1], np.int32)}, "2 gold labels for 3 decisions"),
        ({"teacher": np.zeros((3, 4), np.float32)}, "not 3 units of 3 labels"),
    ],
)
def test_examples_that_cannot_be_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        classification(**change)


def test_a_span_ends_within_its_own_passage() -> None:
    with pytest.raises(DataError, match="not among the choices"):
        spans(gold=np.array([0, 2, 2, 2], np.int32))


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent", "foreign"])
def test_a_damaged_file_is_said_to_be_one(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    classification().save(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "flipped":
            path.write_bytes(bytes(data))
        case "absent":
            path.unlink()
        case "foreign":
            path.write_text("{}")
    with pytest.raises(DataError, match=r"train\.safetensors"):
        ExampleSet.load(path)


def test_turns_are_part_of_what_is_learned(tmp_path: Path) -> None:
    turns = np.array([[0, 2], [1, 2]], np.int32)
    examples = classification(turns=turns)
    examples.save(tmp_path / "train")
    again = ExampleSet.load(tmp_path / "train")
    assert [again.of_epoch(epoch).tolist() for epoch in range(3)] == [[0, 2], [1, 2], [0, 2]]
    assert again.digest == examples.digest != classification().digest
    assert classification(turns=turns[::-1].copy()).digest != examples.digest
    assert classification().of_epoch(1).tolist() == [0, 1, 2]
    for wrong in (np.array([[0, 3]], np.int32), np.array([[-1]], np.int32), np.zeros((2, 0), np.int32)):
        with pytest.raises(DataError, match="its turns read examples that are not among 3, or none"):
            classification(turns=wrong)
