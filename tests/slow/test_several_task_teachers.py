"""A task distilled from two teachers with real parts: engines, caches and worker groups, from start to report."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from killed_drivers import DriverPlace, newly_asked
from task_heads import save_classifier
from task_pipeline_builders import TASK
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cache.views import CacheView
from orchestration.comparison.report import read_results

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(600)]

SPLITS = {"train": 60, "dev": 20, "test": 40, "transfer": 30}
SHARES = {"teacher": 0.75, "contrary": 0.25}
LABELS = ("good", "bad")


@dataclass(frozen=True, slots=True)
class Ran:
    """An experiment that has come to its end, and what it printed."""

    place: DriverPlace
    said: str

    @property
    def directory(self) -> Path:
        """The run directory of the first one."""
        return min((self.place.root / "runs").glob("moods-*"), key=lambda run: (run / "report.json").stat().st_mtime)

    @property
    def views(self) -> Path:
        """Where the views of its teachers lie."""
        return self.directory / "views"


def write_project(root: Path) -> Path:
    """One teacher that knows the task, one that says the opposite with its labels in another order, and a student."""
    save_classifier(root / "teacher", labels=LABELS)
    save_classifier(root / "contrary", labels=LABELS[::-1])
    draw = random.Random(0)
    for name, count in SPLITS.items():
        texts = [" ".join(draw.choices(("sun", "rain", "oslo", "rome", "where"), k=6)) for _ in range(count)]
        rows = [{"text": text, "label": "good" if text.startswith("sun") else "bad"} for text in texts]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "moods.yaml").write_text(yaml.safe_dump(TASK))
    stage = {"objective": "soft_labels", "temperature": 2.0, "data": ["train", "transfer"]}
    experiment = {
        "name": "moods",
        "task": "moods.yaml",
        "teacher": {"model": {"path": "teacher"}, "max_tokens": 16},
        "teachers": {"contrary": {"model": {"path": "contrary"}, "max_tokens": 16}},
        "combine": {"kind": "mixture", "weights": {"teacher": 3.0, "contrary": 1.0}},
        "data": {"transfer": [{"path": "transfer.jsonl"}]},
        "students": {
            "bag": {
                "start": {"kind": "bag", "embedding_size": 8},
                "stages": [stage | {"epochs": 6, "batch_size": 16, "learning_rate": 3.0e-2}],
            }
        },
        "evaluation": {"cka": True, "gold_baseline": False},
        "runtime": {
            "accelerator": "cpu",
            "teacher_engine": {"count": 1, "cpus": 1},
            "training": {"workers": 1, "cpus_per_worker": 1, "zero_stage": 0, "micro_batch_tokens": 512},
        },
    }
    (root / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    return root / "experiment.yaml"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    project = tmp_path_factory.mktemp("project")
    place = DriverPlace(tmp_path_factory.mktemp("several"), write_project(project))
    yield Ran(place, place.finish())
    place.clear()


def probabilities(model: Path, texts: list[str]) -> np.ndarray:
    """Of `LABELS`, by plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    head = AutoModelForSequenceClassification.from_pretrained(model).eval()
    columns = [head.config.label2id[label] for label in LABELS]
    found = []
    for text in texts:
        with torch.no_grad():
            found.append(head(**tokenizer(text, return_tensors="pt")).logits[0].double().softmax(dim=0)[columns])
    return torch.stack(found).numpy()


def texts_of(ran: Ran, split: str) -> list[str]:
    lines = (ran.place.config.parent / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_each_teacher_is_asked_once_for_a_cache_of_its_own(ran: Ran) -> None:
    assert len(list((ran.place.root / "cache").iterdir())) == len(SHARES)
    views = [CacheView.load(folder / "test.npz") for folder in (ran.views, ran.views / "contrary")]
    assert len({view.identity for view in views}) == 2
    again = ran.place.finish("students.bag.stages.0.learning_rate=0.031")
    assert newly_asked(ran.said) > 0 and newly_asked(again) == 0


def test_what_they_answer_together_is_the_mixture_of_their_probabilities(ran: Ran) -> None:
    results = read_results(ran.directory)
    assert [row.name for row in results.models] == ["teachers together", "teacher", "contrary", "bag"]
    texts = texts_of(ran, "test")
    mixed = sum(share * probabilities(ran.place.config.parent / name, texts) for name, share in SHARES.items())
    (scores,) = results.models[0].tasks
    assert [example.row for example in scores.examples] == list(range(len(texts)))
    for example, row in zip(scores.examples, mixed, strict=True):
        assert example.predicted == (LABELS[int(row.argmax())],)
        assert example.confidence == pytest.approx(float(row.max()), abs=1e-4)


def test_a_student_learns_what_both_believe(ran: Ran) -> None:
    """The first teacher has three times the weight, so the student says what it says, and is less sure of it."""
    results = read_results(ran.directory)
    together, first, contrary, student = (row.tasks[0].examples for row in results.models)
    assert not any(row.failures for row in results.models)
    same = [ours.predicted == theirs.predicted for ours, theirs in zip(student, together, strict=True)]
    assert np.mean(same) > 0.85
    assert all(one.predicted != other.predicted for one, other in zip(first, contrary, strict=True))
    sure = {name: np.mean([each.confidence for each in given]) for name, given in (("one", first), ("both", together))}
    assert sure["both"] < sure["one"] - 0.1
    likeness = results.models[3].likeness
    assert likeness is not None and likeness.teacher == "teacher"
