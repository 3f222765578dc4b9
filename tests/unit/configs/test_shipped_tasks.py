"""The shipped tasks: they load, their splits are apart, their classes are even, and their pairs are pairs.

Of the intents, which a student is trained on, also: no message stands twice, the unlabelled ones included, and words
alone tell most of them apart but not all.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from configs import load_task_file
from evaluation.tasks.contamination import duplicates
from evaluation.words import words_of
from orchestration.inputs.tasks import load_task

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "tasks"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
SIZES = {"train": 40, "dev": 30, "test": 60}
INTENT_SIZES = {"train": 40, "dev": 10, "test": 16}
"""Messages of each intent."""

LARGEST = {"intents": 1_000, "places": 500}
"""Rows of a split at most, where it is more than the 100 of tasks that models are only asked."""

everywhere = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


def rows(name: str, split: str) -> list[dict[str, Any]]:
    text = (FOLDER / name / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_four_kinds_are_shipped() -> None:
    kinds = {path.stem: load_task_file(path).kind for path in SHIPPED}
    assert kinds == {
        "intents": "classification",
        "notes": "extractive_qa",
        "past-tense": "exact_match",
        "places": "tagging",
        "reviews": "classification",
    }


@everywhere
def test_every_row_can_be_used_and_there_are_enough(path: Path) -> None:
    task = load_task(path)
    assert task.config.name == path.stem
    assert task.facts.set_aside == ()
    for split, least in SIZES.items():
        assert least <= len(getattr(task, split)) <= LARGEST.get(path.stem, 100), split


@everywhere
def test_no_test_row_stands_in_train_or_dev(path: Path) -> None:
    task = load_task(path)
    assert (task.facts.exact_copies, task.facts.near_copies) == (0, 0)
    for split in (task.train, task.dev):
        assert not {each.question for each in split} & {each.question for each in task.test}


@pytest.mark.parametrize("split", SIZES)
def test_reviews_are_as_often_positive_as_negative(split: str) -> None:
    found = rows("reviews", split)
    assert len(set(Counter(row["label"] for row in found).values())) == 1
    assert len({row["text"] for row in found}) == len(found)


def test_reviews_to_be_labelled_have_no_label_and_are_like_no_others() -> None:
    found = rows("reviews", "transfer")
    assert 400 <= len(found) <= 500 and all(set(row) == {"text"} for row in found)
    texts = Counter(" ".join(words_of(row["text"])) for split in (*SIZES, "transfer") for row in rows("reviews", split))
    assert [text for text, count in texts.items() if count > 1] == []
    for split in SIZES:
        held_out, other = (dict(enumerate(row["text"] for row in each)) for each in (rows("reviews", split), found))
        near = duplicates(held_out, other, threshold=load_task_file(FOLDER / "reviews.yaml").near_duplicate)
        assert (near.exact, near.near) == ((), ())


def test_pairs_of_reviews_differ_in_their_label() -> None:
    pairs: dict[str, list[str]] = {}
    for row in rows("reviews", "test"):
        if row["pair"] is not None:
            pairs.setdefault(row["pair"], []).append(row["label"])
    assert len(pairs) == 12
    assert all(sorted(labels) == ["negative", "positive"] for labels in pairs.values())
    assert {name.partition("-")[0] for name in pairs} == {"negation", "order", "keyword"}


@pytest.mark.parametrize("split", SIZES)
def test_answers_of_notes_stand_in_them(split: str) -> None:
    for row in rows("notes", split):
        assert all(answer.lower() in row["context"].lower() for answer in row["answers"]), row["question"]


@pytest.mark.parametrize("split", SIZES)
def test_a_name_stands_for_one_thing_in_an_account_and_for_several_in_all(split: str) -> None:
    accounts: dict[str, set[tuple[str, str]]] = {}
    for row in rows("places", split):
        named = {(word, tag) for word, tag in zip(row["tokens"], row["tags"], strict=True) if tag != "O"}
        accounts.setdefault(row["account"], set()).update(named)
    assert all(len(named) == 1 for named in accounts.values())
    meant = [named for each in accounts.values() for named in each]
    assert len(set(meant)) > len({name for name, _ in meant})


def test_no_verb_stands_twice() -> None:
    verbs = [row["verb"] for split in SIZES for row in rows("past-tense", split)]
    assert len(set(verbs)) == len(verbs)


def messages(split: str) -> list[str]:
    return [row["text"] for row in rows("intents", split)]


@pytest.mark.parametrize("split", SIZES)
def test_each_intent_has_as_many_messages(split: str) -> None:
    labels = load_task_file(FOLDER / "intents.yaml").verbalisers
    found = Counter(row["label"] for row in rows("intents", split))
    assert len(labels) == 24
    assert found == dict.fromkeys(labels, INTENT_SIZES[split])


def test_messages_to_be_labelled_have_no_label() -> None:
    found = rows("intents", "transfer")
    assert 2_000 <= len(found) <= 2_500
    assert all(set(row) == {"text"} for row in found)


def test_no_message_stands_twice_whatever_its_case_and_punctuation() -> None:
    texts = Counter(" ".join(words_of(text)) for split in (*SIZES, "transfer") for text in messages(split))
    assert [text for text, count in texts.items() if count > 1] == []


@pytest.mark.parametrize("split", ["train", "dev", "transfer"])
def test_no_message_is_nearly_one_of_test(split: str) -> None:
    test, other = (dict(enumerate(messages(name))) for name in ("test", split))
    threshold = load_task_file(FOLDER / "intents.yaml").near_duplicate
    found = duplicates(test, other, threshold=threshold)
    assert (found.exact, found.near) == ((), ())


@pytest.mark.parametrize("split", [*SIZES, "transfer"])
def test_messages_are_of_a_usual_length(split: str) -> None:
    assert [text for text in messages(split) if not 2 <= len(text.split()) <= 40] == []


def test_words_alone_tell_most_intents_apart_but_not_all() -> None:
    """Multinomial naive Bayes over the words of train."""
    train, test = rows("intents", "train"), rows("intents", "test")
    model = make_pipeline(CountVectorizer(), MultinomialNB())
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    right = sum(model.predict([row["text"] for row in test]) == [row["label"] for row in test])
    assert 0.75 <= right / len(test) <= 0.9
