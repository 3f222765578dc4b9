"""Shipped experiments that distil a task, filled and then served: the door says what the fill has kept.

Both are smaller than they are shipped, and have all that is real: a teacher that its run tunes on gold labels, and a
language model that knows labels by their words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from killed_drivers import DriverPlace, newly_asked
from real_doors import RealDoor, real_door

from cache import Signal, SignalRecord, SignalRequest, TeacherCache
from configs import load_experiment
from configs.task_experiment import TaskDistillConfig
from evaluation.tasks.examples import read_examples
from orchestration.inputs.generative_teachers import open_generative_teacher
from orchestration.inputs.real_paths import resolve_task_paths
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_sets import load_learned_task
from orchestration.pipeline.tasks.generative_plan import task_questions
from orchestration.pipeline.tasks.generative_teacher import GenerativeTeacher
from teacher_server.http.connection import DoorSettings
from teacher_server.http.signals.client import HttpSignals

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.group, pytest.mark.timeout(1800)]

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = Signal("class_logits")
INTENTS = (
    "data.gold={per_class: 4, rest: drop}",
    "data.transfer=[{path: tasks/intents/transfer.jsonl, limit: 24}]",
    "teacher.prepare=[{objective: hard_labels, unfrozen: 2, epochs: 1, learning_rate: 3.0e-4, dtype: float32}]",
    "runtime.teacher_engine.count=1",
)
REVIEWS = ("data.transfer=[{path: tasks/reviews/transfer.jsonl, limit: 24}]",)


def texts_of(task: str, *, count: int) -> list[str]:
    """The first of its unlabelled texts, about which the fill asks."""
    lines = (CONFIGS / f"tasks/{task}/transfer.jsonl").read_text().splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture
def doors() -> Iterator[list[RealDoor]]:
    """Those that a test opens; what is left of them is killed."""
    opened: list[RealDoor] = []
    yield opened
    for door in opened:
        door.place.clear()


def filled(root: Path, config: Path, *changes: str) -> DriverPlace:
    """A place whose cache has what the experiment asks."""
    root.mkdir()
    place = DriverPlace(root, config, changes)
    assert newly_asked(place.finish(command="fill")) > 0
    return place


def asked_rows(door: RealDoor, token: str) -> float:
    """Signals that engines of the door were asked for."""
    page = httpx.get(f"{door.url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=60).text
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if 'result="asked"' in line)


def test_a_teacher_that_its_run_tuned_says_at_a_door_what_the_fill_kept(tmp_path: Path, doors: list[RealDoor]) -> None:
    config, texts = CONFIGS / "intents.yaml", texts_of("intents", count=24)
    cache = filled(tmp_path / "filled", config, *INTENTS).cache()
    assert cache is not None
    # A door with a cache of its own, which is empty: engines of the tuned teacher answer, none of what was kept.
    door = real_door(tmp_path / "filled", config, *INTENTS, f"runtime.cache_root={tmp_path / 'empty'}")
    doors.append(door)
    door.open()
    token = door.token("team")
    with HttpSignals(DoorSettings(door.url, token=token)) as teacher:
        assert teacher.identity == cache.identity and len(teacher.facts.labels) == 24
        said = teacher.read(texts, signals=[CLASSES])
    assert asked_rows(door, token) == len(texts)
    for [record] in said:
        assert isinstance(record, SignalRecord)
        request = SignalRequest(tuple(record.token_ids.tolist()), record.split, CLASSES)
        [kept] = cache.signals.get_many(cache.signals.keys([request]))
        assert kept is not None
        np.testing.assert_allclose(record.values, kept.values, atol=1e-3)


def test_labels_that_a_language_model_knows_by_their_words_are_read_from_the_cache_of_the_fill(
    tmp_path: Path, doors: list[RealDoor]
) -> None:
    config, texts = CONFIGS / "reviews.yaml", texts_of("reviews", count=24)
    place = filled(tmp_path / "filled", config, *REVIEWS)
    cache = place.cache()
    assert cache is not None
    door = real_door(tmp_path / "filled", config, *REVIEWS)
    doors.append(door)
    door.open()
    token = door.token("team")
    with HttpSignals(DoorSettings(door.url, token=token)) as teacher:
        assert teacher.facts.labels == ("positive", "negative")
        said = [record for [record] in teacher.read(texts, signals=[CLASSES])]
    assert asked_rows(door, token) == 0
    for record, expected in zip(said, believed(place, cache, texts), strict=True):
        assert isinstance(record, SignalRecord)
        np.testing.assert_allclose(record.values, expected, atol=1e-5)


def believed(place: DriverPlace, cache: TeacherCache, texts: list[str]) -> list[np.ndarray]:
    """What students of the filled cache learn about texts of the transfer set."""
    models = f"runtime.models_root={place.root / 'models'}"
    written = load_experiment(place.config, overrides=[*place.changes, models])
    assert isinstance(written, TaskDistillConfig)
    config = resolve_task_paths(written, config_dir=place.config.parent)
    task = load_learned_task(config.task, None)
    questions = task_questions(config, task, open_generative_teacher(config, task.config).files)
    rows = enumerate({"text": text} for text in texts)
    examples = read_examples(task.config, rows, labelled=False).usable
    found = GenerativeTeacher(questions, cache).about(examples)
    return [each.logits for each in found if isinstance(each, Beliefs)]
