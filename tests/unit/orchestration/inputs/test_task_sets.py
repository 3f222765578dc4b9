from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from task_files import MOODS, write_task

from configs import ConfigError, DataError
from configs.task_experiment import Augmentation, TaskDataConfig, TaskTeacherConfig
from configs.teacher_context import TeacherContext
from configs.teachers import TeacherRoute
from evaluation.tasks.examples import Example
from evaluation.tasks.surroundings import around_of
from orchestration.inputs.augment import Changed, Texts
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.rows import Row
from orchestration.inputs.task_sets import (
    Copies,
    TaskSets,
    apart_from_held_out,
    as_read_by,
    load_learned_task,
    load_task_sets,
    name_anew,
)
from orchestration.inputs.tasks import load_task

TRAIN = [
    *({"text": f"sunny {at}", "mood": "good"} for at in range(6)),
    *({"text": f"grey {at}", "mood": "bad"} for at in range(4)),
]

ROWS = {"train": TRAIN, "dev": [{"text": "jam", "mood": "good"}], "test": [{"text": "pie", "mood": "good"}]}

TRANSFER = [{"text": "cake"}, {"text": "tea"}, {"text": "Cake "}, {"text": "pie"}, {"text": "sunny 0"}, {"words": "x"}]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture()
def place(tmp_path: Path) -> Path:
    """An experiment beside its unlabelled texts, and a task in a folder of its own."""
    (tmp_path / "task").mkdir()
    for split, rows in ROWS.items():
        write(tmp_path / "task" / f"{split}.jsonl", rows)
    (tmp_path / "task/moods.yaml").write_text(json.dumps(MOODS))
    write(tmp_path / "transfer.jsonl", TRANSFER)
    return tmp_path


def doubled(made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
    """Every text with its own words behind it."""
    assert texts == Texts(("text",))
    changed = tuple({**row, "text": f"{row['text']} {row['text']}"} for row in rows)
    copies = tuple((len(rows) + at, at, *[None] * (made.copies - 2)) for at in range(len(rows)))
    return Changed(changed, twice=made.copies, empty=0, copies=copies)


def nothing(made: Augmentation, rows: Sequence[Row], texts: Texts) -> Changed:
    return Changed((), twice=4, empty=0, copies=((),) * len(rows))


def load(place: Path, **data: Any) -> TaskSets:
    config = TaskDataConfig.model_validate(data)
    task = load_task(place / "task/moods.yaml")
    return load_task_sets(task, config, folder=place / "task", config_dir=place, change=doubled)


def texts(sets: TaskSets, *names: str) -> list[str]:
    return [example.text for example in sets.of(names)]


TEXTS = {"transfer": [{"path": "transfer.jsonl"}]}


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


def test_gold_is_drawn_by_label_whatever_the_order_of_the_file(place: Path) -> None:
    drawn = texts(load(place, gold={"per_class": 2, "rest": "drop"}), "train")
    assert [text.split()[0] for text in drawn] == ["sunny", "sunny", "grey", "grey"]
    write(place / "task/train.jsonl", TRAIN[::-1])
    assert sorted(texts(load(place, gold={"per_class": 2, "rest": "drop"}), "train")) == sorted(drawn)
    others = texts(load(place, gold={"per_class": 2, "seed": 1, "rest": "drop"}), "train")
    assert sorted(others) != sorted(drawn)


def test_the_rest_of_train_goes_to_the_texts_without_labels(place: Path) -> None:
    sets = load(place, gold={"per_class": 2}, **TEXTS)
    rest = texts(sets, "transfer")
    assert len(rest) == 6 + 2
    assert set(rest) | set(texts(sets, "train")) == {row["text"] for row in TRAIN} | {"cake", "tea"}
    assert all(example.gold == () for example in sets.of(["transfer"]))


def test_a_label_with_too_few_examples_is_said(place: Path) -> None:
    sets = load(place, gold={"per_class": 5, "rest": "drop"})
    assert len(sets.of(["train"])) == 9
    assert sets.notes == ("data.gold.per_class=5: train has 4 examples of bad",)


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


def read_first_word(examples: Sequence[Example]) -> list[str]:
    """As a model that reads one word of a text."""
    return [example.text.split()[0] for example in examples]


def test_texts_that_a_model_reads_as_held_out_ones_are_left_out_and_counted(place: Path) -> None:
    write(place / "task/train.jsonl", [*TRAIN, {"text": "fog over hills", "mood": "bad"}])
    write(place / "task/dev.jsonl", [{"text": "fog at sea", "mood": "bad"}])
    write(place / "task/test.jsonl", [{"text": "tea time", "mood": "good"}, {"text": TRAIN[0]["text"], "mood": "good"}])
    task = load_task(place / "task/moods.yaml")
    sets = load(place, **TEXTS)
    apart = apart_from_held_out(sets, task, read=read_first_word)
    # Gold may stand in test, as public data do, and not in dev, by which students are chosen.
    assert texts(apart, "train") == [row["text"] for row in TRAIN]
    assert texts(apart, "transfer") == ["cake", "pie"]
    assert apart.notes[len(sets.notes) :] == (
        "train: 1 texts left out that are read as others of dev or test are",
        "transfer: 1 texts left out that are read as others of dev or test are",
    )
    with pytest.raises(DataError, match="train: every text is read as one of dev or test is: name others"):
        apart_from_held_out(sets, replace(task, dev=task.train), read=read_first_word)


def test_a_head_reads_as_far_as_it_is_told_and_a_language_model_whole_questions(place: Path) -> None:
    task = load_task(place / "task/moods.yaml")
    tokenizer = byte_tokenizer()
    first, other = (
        replace(task.dev[0], text=text, parts=(text,), question=text) for text in ("fog at sea", "fog over")
    )

    def same(answers: str) -> bool:
        model: Any = {"path": "m"}
        teacher = TaskTeacherConfig.model_validate({"model": model, "answers": answers, "max_tokens": 4})
        one, two = as_read_by(teacher, tokenizer, task=task.config)([first, other])
        return one == two

    assert same("head") and not same("text") and not same("labels")


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


def test_rows_are_routed_to_teachers_with_those_that_are_made_of_them(place: Path) -> None:
    for split, rows in ROWS.items():
        write(
            place / "task" / f"{split}.jsonl",
            [{**row, "from": {"town": 1 if row["mood"] == "good" else 2}} for row in rows],
        )
    write(place / "transfer.jsonl", [{"text": "cake", "from": {"town": 2}}])
    data = TaskDataConfig.model_validate(
        {"transfer": [{"path": "transfer.jsonl"}], "augment": {"rules": {"kind": "rules", "copies": 1}}}
    )
    task = load_task(place / "task/moods.yaml")
    route = TeacherRoute(kind="route", field="from.town", to={"1": "teacher", "2": "large"})
    sets = load_task_sets(task, data, folder=place / "task", config_dir=place, change=doubled, route=route)
    first, large = sets.of_teacher("teacher"), sets.of_teacher("large")
    assert texts(first, "train", "rules") == [f"sunny {at}" for at in range(6)] + [
        f"sunny {at} sunny {at}" for at in range(6)
    ]
    assert texts(large, "transfer") == ["cake"] and len(large.sets["train"]) == 4 and first.sets["transfer"] == ()
    assert sets.part_of("teacher", task.dev) == task.dev and sets.part_of("large", task.test) == ()
    lost = route.model_copy(update={"to": {"1": "teacher", "3": "large"}})
    with pytest.raises(ConfigError, match=r"no teacher for from.town='2', which row 6 of train has; it knows 1, 3"):
        load_task_sets(task, data, folder=place / "task", config_dir=place, change=doubled, route=lost)


RULES = {"kind": "rules", "of": ["train", "transfer"], "copies": 3}


def test_it_is_known_what_texts_were_made_of(place: Path) -> None:
    sets = load(place, transfer=[{"path": "transfer.jsonl"}], augment={"more": RULES})
    (first, *_), last = sets.copies["more"], sets.copies["more"][-1]
    assert first == Copies(("train", 0), (("more", 0), ("train", 0), None))
    assert (last.source, last.places[0]) == (("transfer", 1), ("more", 11))
    by_place = {(name, each.row): each.text for name, examples in sets.sets.items() for each in examples}
    for each in sets.copies["more"]:
        (copy, itself, _), text = each.places, by_place[each.source]
        assert copy is not None and by_place[copy] == f"{text} {text}" and itself == each.source
    assert apart_from_held_out(sets, load_task(place / "task/moods.yaml"), read=list).copies == sets.copies


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
