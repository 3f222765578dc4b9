"""Experiments that distil a task from a language model in a real engine.

They are ended by a budget or killed and gone on with; what was kept is never asked again, and what is held to a grammar
can be read.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from killed_drivers import DriverPlace, newly_asked
from task_heads import save_span_finder

from configs.errors import BudgetReached
from evaluation.results import ModelResults
from orchestration.comparison.report import read_results

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.group, pytest.mark.timeout(1800)]

STAGE = {"data": ["train"], "steps": 4, "batch_size": 8, "learning_rate": 1e-3}
HARD = {"objective": "hard_labels", "labels": "teacher"}

REVIEWS = ROOT / "configs/tasks/reviews.yaml"
TRANSFER = 500
"""Reviews that are made of words; the teacher writes for some seconds, and commits several times."""

TOWNS = ("Oslo", "Rome", "New York")
PEOPLE = ("Ada", "Bo", "Cy Twombly")


def experiment(
    place: Path,
    *,
    answers: str,
    objective: str,
    task: Path = REVIEWS,
    student: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """The file of an experiment whose teacher is a decoder of random weights that reads bytes."""
    tiny = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    stage = STAGE | (HARD if objective == "hard_labels" else {"objective": objective})
    stage |= {"data": ["train", "transfer"]} if data else {}
    start = student or {"kind": "bag", "embedding_size": 8}
    places = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    values = {
        "name": "spoken",
        "task": str(task),
        "teacher": {"model": tiny["teacher"]["model"], "answers": answers, "max_tokens": 128, **settings},
        "data": data or {},
        "students": {start["kind"]: {"start": start, "stages": [stage]}},
        "runtime": {key: str(place / name) for key, name in places.items()}
        | {"accelerator": "cpu", "teacher_engine": tiny["runtime"]["teacher_engine"], "commit_every_s": 0.1}
        | {"training": {"workers": 1, "zero_stage": 0}},
    }
    path = place / f"{answers}-{objective}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def distill(config: Path, command: str, *changes: str, expected: int = 0) -> str:
    arguments = [sys.executable, "-m", "orchestration", command, "--config", str(config)]
    arguments += [part for value in changes for part in ("--set", value)]
    done = subprocess.run(arguments, cwd=config.parent, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def teacher_of(config: Path) -> ModelResults:
    """The row of the teacher in the newest finished run."""
    (*_, newest) = sorted((config.parent / "runs").glob("spoken-*/report.json"), key=lambda path: path.stat().st_mtime)
    (found,) = (row for row in read_results(newest.parent).models if row.role == "teacher")
    return found


def test_labels_are_asked_once_whatever_ends_the_first_run(tmp_path: Path) -> None:
    config = experiment(tmp_path, answers="labels", objective="logit_mse", calibrated=True)
    ended = distill(config, "run", "budgets.max_teacher_tokens=4000", expected=BudgetReached.exit_code)
    assert "budgets.max_teacher_tokens" in ended
    said = distill(config, "run")
    assert "agree with a plain forward pass" in said and "cached" in said
    row = teacher_of(config)
    assert row.tasks[0].answered_by == "label likelihood per token, calibrated" and row.serving is None
    assert all(example.predicted is not None for example in (*row.tasks[0].examples, *row.dev[0].examples))
    again = experiment(tmp_path, answers="labels", objective="soft_labels", calibrated=True)
    said = distill(again, "run")
    assert "every row is in the cache and no engine starts" in said and "teacher engine" not in said
    assert repr(teacher_of(again).tasks) == repr(row.tasks)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverPlace]:
    """An undisturbed run over reviews, some of them without a label."""
    project = tmp_path_factory.mktemp("project")
    draw = random.Random(0)
    words = ("soup", "cold", "never", "lovely", "again", "boots", "the", "was", "staff", "broke")
    texts = {" ".join(draw.choices(words, k=8)): None for _ in range(TRANSFER)}
    (project / "transfer.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = {"transfer": [{"path": str(project / "transfer.jsonl")}]}
    config = experiment(project, answers="text", objective="hard_labels", data=data)
    place = DriverPlace(tmp_path_factory.mktemp("calm"), config)
    assert "could not be read" not in place.finish()
    yield place
    place.clear()


def held(place: DriverPlace) -> int:
    """Answers that are committed."""
    cache = place.cache()
    return 0 if cache is None else cache.stats().records


def test_a_model_that_would_babble_writes_what_can_be_read(calm: DriverPlace) -> None:
    (run,) = (calm.root / "runs").glob("spoken-*")
    (row,) = (row for row in read_results(run).models if row.role == "teacher")
    for example in (*row.tasks[0].examples, *row.dev[0].examples):
        assert example.answer.strip() in ("positive", "negative")
        assert example.predicted == (example.answer.strip(),)


def test_what_was_committed_before_a_kill_is_not_asked_again(calm: DriverPlace, tmp_path: Path) -> None:
    place = replace(calm, root=tmp_path)
    try:
        place.stop_when(lambda: held(place) > 0, line="- fill")
        before, whole = held(place), held(calm)
        assert 0 < before < whole
        printed = place.finish()
        assert newly_asked(printed) == whole - before and held(place) == whole
        # The same answers, in the same words: their keys are over the tokens. Where they lie depends on the kill.
        assert [view.keys.tobytes() for view in place.views()] == [view.keys.tobytes() for view in calm.views()]
        ours, theirs = place.came_to(), calm.came_to()
        assert place.weights() == calm.weights() and ours.pop("views").keys() == theirs.pop("views").keys()
        assert ours == theirs
    finally:
        place.clear()


def write_task(folder: Path, rows: dict[str, list[dict[str, Any]]], **task: Any) -> Path:
    for split, examples in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    data = {split: {"path": f"{split}.jsonl"} for split in rows}
    (folder / "task.yaml").write_text(yaml.safe_dump({"name": "towns", "data": data, "chat": False, **task}))
    return folder / "task.yaml"


def assert_counted(said: str, row: ModelResults) -> None:
    """What a run says that it could not read of dev and test is what the teacher's row has no answer of."""
    said = " ".join(said.split())
    for name, (scores,) in (("test", row.tasks), ("dev", row.dev)):
        unread = sum(example.predicted is None for example in scores.examples)
        line = f"{name}: {unread} of {len(scores.examples)} answers of the teacher could not be read"
        assert (line in said) is (unread > 0)


def test_entities_are_words_of_their_rows_and_what_is_cut_off_is_counted(tmp_path: Path) -> None:
    def towns(number: int) -> dict[str, Any]:
        person, town = PEOPLE[number % 3].split(), TOWNS[number // 3 % 3].split()
        tags = ["B-PER", "I-PER"][: len(person)] + ["O"] * 2 + ["B-LOC", "I-LOC"][: len(town)]
        return {"tokens": [*person, "goes", f"to{number}", *town], "tags": tags}

    rows = {"train": range(18), "dev": range(18, 27), "test": range(27, 45)}
    task = write_task(
        tmp_path,
        {split: list(map(towns, numbers)) for split, numbers in rows.items()},
        kind="tagging",
        fields={"tokens": "tokens", "tags": "tags"},
        labels=["PER", "LOC"],
        template="Text: {{ tokens | join(' ') }}\nEntities:",
        max_new_tokens=24,
    )
    recurrent = {"kind": "recurrent", "embedding_size": 8, "hidden": 8}
    config = experiment(tmp_path, answers="text", objective="hard_labels", task=task, student=recurrent)
    said = distill(config, "run")
    row = teacher_of(config)
    for example in (*row.tasks[0].examples, *row.dev[0].examples):
        *whole, last = example.answer.removeprefix(" ").removesuffix("\n").split("\n")
        if example.predicted is not None and len(whole) == 0 and last == "none":
            continue
        for line in whole:
            kind, _, words = line.partition(": ")
            assert kind in ("PER", "LOC") and f" {words} " in f" {example.shown} ".replace("\n", " ")
        assert example.predicted is None or len(example.predicted) <= len(whole) + 1
        assert example.predicted is not None or not whole
    assert_counted(said, row)


def test_answers_stand_in_their_passages_and_what_is_cut_off_is_counted(tmp_path: Path) -> None:
    def passage(number: int) -> dict[str, Any]:
        # No answer to every other question ends within twelve bytes.
        context = f"tax{number}" if number % 2 else f"Constantinople{number} Wolfenbuettelhausen{number}"
        return {"context": context, "question": f"Where is {number}?", "answers": [context.split()[0]]}

    rows = {"train": range(16), "dev": range(16, 22), "test": range(22, 32)}
    task = write_task(
        tmp_path,
        {split: list(map(passage, numbers)) for split, numbers in rows.items()},
        kind="extractive_qa",
        fields={"context": "context", "answers": "answers"},
        template="Text: {{ context }}\nQuestion: {{ question }}\nAnswer:",
        max_new_tokens=12,
    )
    own = {"kind": "transformer", "model": {"path": str(save_span_finder(tmp_path / "finder"))}}
    config = experiment(tmp_path, answers="text", objective="hard_labels", task=task, student=own)
    said = distill(config, "run")
    row = teacher_of(config)
    for example in (*row.tasks[0].examples, *row.dev[0].examples):
        if "Constantinople" in example.shown:
            assert example.predicted is None
        else:
            assert example.predicted and example.predicted[0] and example.predicted[0] in example.shown
    assert "train: 8 of 16 answers of the teacher could not be read" in " ".join(said.split())
    assert_counted(said, row)
