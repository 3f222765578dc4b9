"""Models are asked in their own tokens and labels, once for each text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from task_heads import save_classifier

from configs.task import TaskConfig
from evaluation.tasks.examples import read_examples
from orchestration.audits.tasks import beliefs as module
from orchestration.audits.tasks.beliefs import LabelBeliefs
from orchestration.audits.tasks.finished import HeadModel

TASK = TaskConfig.model_validate(
    {
        "name": "moods", "kind": "classification", "data": {"test": {"path": "x.jsonl"}}, "fields": {"label": "label"},
        "labels": {"bad": "rainy", "good": "sunny"}, "template": "{{ text }}",
    }
)  # fmt: skip


def test_labels_are_those_of_the_task_whatever_the_head_calls_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(tmp_path, labels=("sunny", "rainy"))
    model = HeadModel("teacher", tmp_path, "d", 16, ("sunny", "rainy"), (1, 0))
    rows = enumerate([{"text": "sun rain", "label": "good"}, {"text": "rain", "label": "bad"}])
    examples = read_examples(TASK, rows).usable
    asked = LabelBeliefs(TASK, "cpu")
    believed = asked.of(model, examples)
    assert [int(each.logits[0].argmax()) for each in believed] == [1, 0]
    monkeypatch.setattr(module, "label_logits", lambda *_, **__: pytest.fail("it was asked again"))
    again = asked.of(model, [examples[1], examples[0]])
    np.testing.assert_array_equal(again[0].logits, believed[1].logits)
