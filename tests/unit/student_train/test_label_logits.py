"""Logits of a head are those that it gives one example at a time, in the order of the examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from task_students import LABELS, save_network, save_transformer

from configs.errors import ModelError
from configs.task import TaskKind
from student_train.feed.examples import ExampleSet
from student_train.label_logits import label_logits


def examples(lengths: list[int], *, kind: TaskKind = "classification") -> ExampleSet:
    units = [1] * len(lengths) if kind == "classification" else lengths
    return ExampleSet(
        kind=kind,
        labels=LABELS,
        token_ids=np.arange(4, 4 + sum(lengths), dtype=np.int32) % 30,
        token_offsets=np.cumsum([0, *lengths]).astype(np.int64),
        split=np.array(lengths, dtype=np.int32),
        unit_offsets=np.cumsum([0, *units]).astype(np.int64),
        unit_tokens=np.array([token for each in units for token in range(each)]).astype(np.int32),
        gold=np.zeros(sum(units), dtype=np.int32),
        teacher=None,
    )


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_examples_of_many_lengths_keep_their_order(tmp_path: Path, kind: TaskKind) -> None:
    model = save_transformer(tmp_path, kind=kind)
    lengths = [7, 2, 11, 3, 5]
    together = label_logits(model, examples(lengths, kind=kind))
    assert [len(each) for each in together] == ([1] * 5 if kind == "classification" else lengths)
    whole, alone = examples(lengths, kind=kind), examples([2], kind=kind)
    np.testing.assert_array_equal(whole.token_ids[7:9], [11, 12])
    object.__setattr__(alone, "token_ids", whole.token_ids[7:9])
    np.testing.assert_allclose(label_logits(model, alone)[0], together[1], atol=1e-5)


def test_labels_may_be_called_as_the_head_calls_them(tmp_path: Path) -> None:
    model = save_network(tmp_path / "lstm", name="lstm", labels=("a", "b", "c"))
    assert label_logits(model, examples([4]), labels=("a", "b", "c"))[0].shape == (1, 3)
    with pytest.raises(ModelError, match="its head knows 3 labels"):
        label_logits(model, examples([4]))
    assert label_logits(model, examples([])) == []
