"""Tasks are found, read and checked before anything is asked; what cannot be used is named."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from task_files import ROWS, write_task

from configs import ConfigError, DataError, DistillError, load_task_file
from configs.task import TaskConfig
from orchestration.inputs import tasks
from orchestration.inputs.tasks import load_task, load_tasks

REAL = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"


def test_a_task_knows_its_rows_and_what_there_is_to_know(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, few_shot=2, licence="apache-2.0"))
    facts = task.facts
    assert [example.question for example in task.test] == ["pie is", "fog is", "fig is"]
    assert [example.gold for example in task.test] == [("good",), ("bad",), ("good",)]
    assert (facts.train_rows, facts.dev_rows, facts.test_rows) == (3, 1, 3)
    assert facts.train_label_counts == {"good": 2, "bad": 1}
    assert facts.baseline == pytest.approx(2 / 3)  # "good" is the most frequent label of train
    assert (facts.kind, facts.labels, facts.metric, facts.licence) == (
        "classification", ("good", "bad"), "accuracy", "apache-2.0",
    )  # fmt: skip
    turns = task.shots.before(task.test[0])
    assert len(turns) == 2
    assert {turn.question for turn in turns} < {example.question for example in task.train}


def test_entities_are_counted_by_their_type() -> None:
    gold = [("0 0 PER", "7 8 LOC"), (), ("3 3 LOC",)]
    assert tasks._label_counts("tagging", gold) == {"PER": 1, "LOC": 2}
    assert tasks._label_counts("classification", [("card not working",)]) == {"card not working": 1}


def test_rows_are_looked_for_beside_the_task_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_task(tmp_path / "here")
    write_task(tmp_path / "elsewhere", rows={**ROWS, "test": [{"text": "other", "mood": "bad"}]})
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_task(path).facts.test_rows == 3


def test_the_digest_is_of_settings_and_rows_and_not_of_the_place(tmp_path: Path) -> None:
    digest = load_task(write_task(tmp_path / "a")).facts.digest
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert load_task(tmp_path / "b" / "task.yaml").facts.digest == digest
    assert load_task(write_task(tmp_path / "c", few_shot=1)).facts.digest != digest
    changed = {**ROWS, "test": [*ROWS["test"][:2], {"text": "fig", "mood": "bad"}]}
    assert load_task(write_task(tmp_path / "d", rows=changed)).facts.digest != digest


def test_classes_of_a_dataset_are_labels_by_their_names(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "mood": ClassLabel(names=["bad", "good"])})
    (tmp_path / "data").mkdir()
    for split, numbers in (("train", [1, 0]), ("test", [0, 1, -1])):
        columns = {"text": [f"{split} {at}" for at in range(len(numbers))], "mood": numbers}
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / f"{split}.parquet")
    data = {split: {"hub": str(tmp_path / "data")} for split in ("train", "test")}
    task = load_task(write_task(tmp_path / "task", data=data, few_shot=1))
    assert [example.gold for example in task.test] == [("bad",), ("good",)]
    assert {turn.answer for turn in task.shots.before(task.test[0])} <= {"good", "bad"}
    assert [line.partition(": ")[2] for line in task.facts.set_aside] == ["label '-1' is not among labels"]


def test_numbers_stand_for_labels_where_the_task_says_so(tmp_path: Path) -> None:
    rows = {split: [{"text": f"{split} {at}", "mood": at % 2} for at in range(3)] for split in ("train", "dev", "test")}
    with pytest.raises(DataError, match=r"row 0: label '0' is not among labels \(good, bad\).*label_is_index: true"):
        load_task(write_task(tmp_path, rows=rows))
    task = load_task(write_task(tmp_path, rows=rows, label_is_index=True))
    assert [example.gold for example in task.test] == [("good",), ("bad",), ("good",)]


def test_a_task_that_says_nothing_of_numbers_has_the_digest_from_before_it_could(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_task(tmp_path)
    digest, said = load_task(path).facts.digest, load_task_file(path).model_dump(mode="json", exclude={"data"})
    before = {key: value for key, value in said.items() if key != "label_is_index"}
    assert before != said
    monkeypatch.setattr(TaskConfig, "model_dump", lambda *_, **__: dict(before))
    monkeypatch.setattr(tasks, "LATER_KEYS", ())
    assert load_task(path).facts.digest == digest
    monkeypatch.setattr(TaskConfig, "model_dump", lambda *_, **__: dict(said))
    assert load_task(path).facts.digest != digest


def test_rows_that_cannot_be_used_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    rows = {**ROWS, "test": [*ROWS["test"], "{broken", {"mood": "good"}, {"text": "x", "mood": "odd"}, {"text": "y"}]}
    task = load_task(write_task(tmp_path, rows=rows))
    assert [example.row for example in task.test] == [0, 1, 2]
    starts = [line.partition(":")[0] for line in task.facts.set_aside]
    assert starts == [f"test row {number}" for number in (3, 4, 5, 6)]
    for line, said in zip(task.facts.set_aside, ("invalid JSON", "text", "odd", "mood"), strict=True):
        assert said in line


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (
            {**ROWS, "dev": [{"text": "x", "mood": "odd"}]},
            "none of 1 rows can be used; row 0: label 'odd' is not among",
        ),
        ({**ROWS, "test": []}, "is empty"),
    ],
)
def test_a_split_without_a_row_is_one_line(tmp_path: Path, rows: Any, error: str) -> None:
    path = write_task(tmp_path, rows=rows)
    with pytest.raises(DataError) as refused:
        load_task(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert error in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_names_the_places_that_were_tried(tmp_path: Path) -> None:
    path = write_task(tmp_path, data={"test": {"path": "absent.jsonl"}}, answer=None)
    with pytest.raises(ConfigError, match=rf"^{path}: absent\.jsonl: found neither {tmp_path}/absent\.jsonl nor "):
        load_task(path)


def test_an_experiments_task_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    write_task(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"^evaluation\.tasks\.1: odd\.yaml: found neither {tmp_path}/odd\.yaml nor "
    ):
        load_tasks([Path("task.yaml"), Path("odd.yaml")], config_dir=tmp_path)


def test_copies_between_train_and_test_are_counted(tmp_path: Path) -> None:
    long = "a review of a place that was clean and near the sea and had good bread for all"
    rows = {
        "train": [{"text": "Pie", "mood": "good"}, {"text": long, "mood": "good"}],
        "dev": ROWS["dev"],
        "test": [*ROWS["test"], {"text": f"{long} guests", "mood": "good"}],
    }
    facts = load_task(write_task(tmp_path, rows=rows)).facts
    assert (facts.exact_copies, facts.near_copies, facts.near_duplicate) == (1, 1, 0.8)


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write_task(tmp_path / "a"), write_task(tmp_path / "b", few_shot=1)]
    with pytest.raises(ConfigError, match="two tasks have the name moods"):
        load_tasks(paths, config_dir=tmp_path)
    assert len(load_tasks(paths[:1], config_dir=tmp_path)) == 1


def test_a_task_in_a_tagged_corpus(tmp_path: Path) -> None:
    (tmp_path / "names.conll").write_text("Ada B-PER\nlaughs O\n\nOslo B-LOC\n")
    path = write_task(
        tmp_path,
        rows={},
        kind="tagging",
        data={"test": {"path": "names.conll"}},
        fields={"tokens": "tokens", "tags": "tags"},
        labels=["PER", "LOC"],
        template="{{ tokens | join(' ') }}",
        answer=None,
    )
    task = load_task(path)
    assert [example.gold for example in task.test] == [("0 1 PER",), ("0 1 LOC",)]
    assert task.test[0].tokens == ("Ada", "laughs")
    assert task.facts.baseline == 0.0


REAL_TASKS: dict[str, tuple[dict[str, Any], int]] = {
    "banking77": (
        {
            "kind": "classification", "fields": {"label": "category"}, "template": "{{ text }}",
            "data": {"train": {"path": "train.csv"}, "test": {"path": "test.csv", "limit": 300}},
        },
        300,
    ),
    "wikigold": (
        {
            "kind": "tagging", "fields": {"tokens": "tokens", "tags": "tags"}, "template": "{{ tokens | join(' ') }}",
            "labels": ["PER", "LOC", "ORG", "MISC"], "data": {"test": {"path": "wikigold.conll.txt", "limit": 200}},
        },
        200,
    ),
    "gsm8k": (
        {
            "kind": "exact_match", "fields": {"answer": "final"}, "template": "{{ question }}",
            "data": {"test": {"path": "test.jsonl", "limit": 100}},
        },
        100,
    ),
    "scitldr": (
        {
            "kind": "generation", "fields": {"references": "target"}, "template": "{{ source | join(' ') }}",
            "data": {"test": {"path": "dev.jsonl", "limit": 100}},
        },
        100,
    ),
    "self_instruct": (
        {
            "kind": "generation", "fields": {"references": "output"}, "template": "{{ instruction }}\n{{ input }}",
            "data": {"test": {"path": "flat.jsonl", "limit": 100}},
        },
        100,
    ),
}  # fmt: skip
"""Public data as tasks, and how many of their rows can be used."""


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL_TASKS)
def test_public_data_is_read_as_it_stands(name: str, tmp_path: Path) -> None:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    settings, usable = REAL_TASKS[name]
    for path in folder.iterdir():
        if path.suffix in (".csv", ".jsonl", ".txt"):
            (tmp_path / path.name).symlink_to(path.resolve())
    if name == "banking77":
        with (folder / "train.csv").open(newline="") as stream:
            settings = {**settings, "labels": sorted({row["category"] for row in csv.DictReader(stream)})}
    if name == "gsm8k":
        (tmp_path / "test.jsonl").unlink()
        _rewrite(
            folder / "test.jsonl",
            tmp_path / "test.jsonl",
            lambda row: row | {"final": row["answer"].rpartition("####")[2].strip()},
        )
    if name == "self_instruct":
        _rewrite(
            folder / "user_oriented_instructions.jsonl", tmp_path / "flat.jsonl", lambda row: row | row["instances"][0]
        )
    plain = {"labels": None, "answer": None, "rows": {}}
    task = load_task(write_task(tmp_path, **{**plain, **settings, "called": name}))
    assert task.facts.test_rows + len([line for line in task.facts.set_aside if line.startswith("test")]) == usable
    assert task.facts.test_rows >= 0.95 * usable
    assert all(example.question.strip() for example in task.test)


def _rewrite(source: Path, target: Path, change: Any) -> None:
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    target.write_text("".join(json.dumps(change(row)) + "\n" for row in rows))


def test_every_refusal_is_for_the_user(tmp_path: Path) -> None:
    for settings in ({"template": "{{ text"}, {"parser": {"kind": "pattern", "regex": "("}}):
        with pytest.raises(DistillError):
            load_task(write_task(tmp_path, **settings))
