from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from set_builders import RULES, TEXTS, TRAIN, doubled, load, nothing, place, texts, write
from task_files import MOODS, write_task

from configs import ConfigError, DataError
from configs.task_data import Augmentation, TaskDataConfig
from configs.teacher_context import TeacherContext
from evaluation.tasks.surroundings import around_of
from orchestration.inputs.augment import Changed, Texts
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.rows import Row
from orchestration.inputs.task_sets import load_learned_task, load_task_sets, name_anew
from orchestration.inputs.tasks import load_task

__all__ = ["place"]


def test_without_more_the_train_split_is_gold(place: Path) -> None:
    sets = load(place)
    assert list(sets.sets) == ["train"] and sets.notes == ()
    assert texts(sets, "train") == [row["text"] for row in TRAIN]


def test_texts_that_say_nothing_new_are_left_out_and_counted(place: Path) -> None:
    sets = load(place, **TEXTS)
    assert texts(sets, "transfer") == ["cake", "tea"]
    assert all(example.gold == () for example in sets.of(["transfer"]))
    assert sets.notes == (
        "transfer: 1 rows set aside; the first: row 5: template: 'text' is undefined",
        "transfer: 3 texts left out that stand there twice, or among gold, dev or test examples",
    )


def test_the_rest_of_train_goes_to_the_texts_without_labels(place: Path) -> None:
    sets = load(place, gold={"per_class": 2}, **TEXTS)
    rest = texts(sets, "transfer")
    assert len(rest) == 6 + 2
    assert set(rest) | set(texts(sets, "train")) == {row["text"] for row in TRAIN} | {"cake", "tea"}
    assert all(example.gold == () for example in sets.of(["transfer"]))


@pytest.mark.parametrize(
    ("of", "count", "gold"), [(["train"], 10, 1), (["transfer"], 2, 0), (["train", "transfer"], 12, 0)]
)
def test_what_is_made_of_gold_alone_is_gold(of: list[str], count: int, gold: int, place: Path) -> None:
    sets = load(place, augment={"more": {"kind": "rules", "of": of, "copies": 3}}, **TEXTS)
    made = sets.of(["more"])
    assert len(made) == count
    assert {len(example.gold) for example in made} == {gold}
    assert sets.notes[-1] == f"more: {count} texts made of {count}, 3 dropped as copies or as empty"


def test_what_is_written_on_has_no_label(place: Path) -> None:
    augment = {"more": {"kind": "continuation", "model": {"hub": "some/lm"}}}
    assert {example.gold for example in load(place, augment=augment).of(["more"])} == {()}


def test_texts_that_are_all_there_already_are_refused(place: Path) -> None:
    write(place / "transfer.jsonl", [{"text": "pie"}])
    with pytest.raises(DataError, match="no text is left"):
        load(place, **TEXTS)


def test_a_file_that_is_not_there_is_named(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: found neither"):
        load(place, transfer=[{"path": "nowhere.jsonl"}])


def test_an_augmentation_that_makes_nothing_is_refused(place: Path) -> None:
    config = TaskDataConfig.model_validate({"augment": {"more": {"kind": "rules"}}})
    task = load_task(place / "task/moods.yaml")
    with pytest.raises(DataError, match=r"data\.augment\.more makes no text"):
        load_task_sets(task, config, folder=place / "task", config_dir=place, change=nothing)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"gold": {"per_class": 2}}, "draws by label, and task spans is of kind=extractive_qa"),
        ({"augment": {"more": {"kind": "rules"}}}, "whose answers stand in the text that would be changed"),
    ],
)
def test_what_a_kind_of_task_cannot_have_is_refused(data: dict[str, Any], reason: str, place: Path) -> None:
    spans = {
        "name": "spans",
        "kind": "extractive_qa",
        "data": MOODS["data"],
        "fields": {"context": "text", "answers": "mood"},
        "template": "{{ text }}",
    }
    (place / "task/moods.yaml").write_text(json.dumps(spans))
    with pytest.raises(DataError, match=reason):
        load(place, **data)


def test_texts_of_another_task_are_refused_by_their_key(place: Path) -> None:
    write(place / "other.jsonl", [{"words": "x"}, {"words": "y"}])
    with pytest.raises(DataError, match=r"^data\.transfer: task moods: none of 2 rows can be used; row 0: .*text"):
        load(place, transfer=[{"path": "other.jsonl"}])


def test_a_class_without_gold_examples_is_said(place: Path) -> None:
    rows = [row for row in TRAIN if row["mood"] == "good"]
    (place / "task/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(place).notes == ("train has no example of bad: gold labels alone cannot teach it",)


def spans(place: Path, *answers: str) -> Path:
    """A task with spans, whose train rows have these answers."""
    asked = [{"question": "where", "context": "oslo is here", "answers": [answer]} for answer in answers]
    found = [{"question": "who", "context": "rain fell", "answers": ["rain"]}]
    rows = {"train": asked, "dev": found, "test": found}
    return write_task(
        place, rows=rows, kind="extractive_qa", fields={"context": "context", "answers": "answers"}, labels=None,
        template="{{ question }} {{ context }}", answer=None,
    )  # fmt: skip


def test_answers_that_do_not_stand_in_their_passage_are_counted(tmp_path: Path) -> None:
    task = load_learned_task(spans(tmp_path / "some", "oslo", "Oslo", "rome"))
    sets = load_task_sets(task, TaskDataConfig(), folder=tmp_path / "some", config_dir=tmp_path, change=doubled)
    assert sets.notes == ("train: 2 of 3 answers do not stand in their passage: no span is learned",)
    with pytest.raises(DataError, match="no train row has an answer that stands in its passage"):
        load_learned_task(spans(tmp_path / "none", "rome"))


def test_a_task_to_learn_has_rows_to_learn_from_and_to_choose_by(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        data = {each: {"path": f"{each}.jsonl"} for each in ("train", "dev", "test") if each != split}
        with pytest.raises(ConfigError, match=f"has no {split} rows, .* set data.{split} in "):
            load_learned_task(write_task(tmp_path / split, data=data))


def test_what_live_teachers_read_is_drawn_for_every_epoch(place: Path) -> None:
    config = TaskDataConfig.model_validate({"augment": {"more": RULES | {"of": ["train"]}}})
    asked: list[int] = []

    def change(made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
        asked.append(made.copies)
        return doubled(made, rows, texts)

    task = load_task(place / "task/moods.yaml")
    sets = load_task_sets(task, config, folder=place / "task", config_dir=place, change=change, anew={"more": 40})
    assert asked == [3, 40]
    assert list(sets.sets) == ["train", "more", name_anew("more")]
    assert sets.copies[name_anew("more")][2].places[0] == (name_anew("more"), 2)


def in_context(place: Path, *, change: Any = doubled, **data: Any) -> TaskSets:
    """The sets where a teacher sees one row before each."""
    context = TeacherContext.model_validate({"neighbours": {"before": 1}})
    task = load_learned_task(place / "task/moods.yaml", context)
    config = TaskDataConfig.model_validate(data)
    return load_task_sets(task, config, folder=place / "task", config_dir=place, change=change)


def before(sets: TaskSets, name: str) -> dict[str, str]:
    """The text before each text."""
    found = {example.text: around_of(example).before for example in sets.of([name])}
    return {text: "" if not around else around[0][0] for text, around in found.items()}


def test_texts_to_transfer_on_have_neighbours_of_their_own_file(place: Path) -> None:
    assert before(in_context(place, **TEXTS), "transfer") == {"cake": "", "tea": "cake"}
    # The file is what counts, also where a row of it is left out: `sunny 0` stands there, and is gold.
    write(place / "transfer.jsonl", [{"text": "sunny 0"}, {"text": "new"}])
    assert before(in_context(place, **TEXTS), "transfer") == {"new": "sunny 0"}


def test_neighbours_of_a_drawn_part_are_those_of_the_whole_file(place: Path) -> None:
    sets = in_context(place, gold={"per_class": 2})
    whole = [row["text"] for row in TRAIN]
    expected = {text: whole[at - 1] if at else "" for at, text in enumerate(whole)}
    assert len(sets.of(["train"])) == 4
    assert before(sets, "train") | before(sets, "transfer") == expected


def test_a_changed_text_keeps_the_neighbours_of_the_text_it_was_made_of(place: Path) -> None:
    augment = {"twice": {"kind": "rules", "of": ["train", "transfer"], "copies": 2}}
    sets = in_context(place, augment=augment, **TEXTS)
    own = before(sets, "train") | before(sets, "transfer")
    assert before(sets, "twice") == {f"{text} {text}": text_before for text, text_before in own.items()}
