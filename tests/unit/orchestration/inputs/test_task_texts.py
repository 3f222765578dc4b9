"""Examples as models read them, with the tokenizer of tests/support/task_heads.py: whole words, `sunrain` in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_builders import task_of
from task_heads import WORDS, save_classifier, save_span_finder
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from configs import ConfigError
from configs.task import TaskConfig
from evaluation.tasks.examples import Example, read_examples
from orchestration.inputs.task_texts import WHOLE, decision_labels, read_with

ID = {word: at for at, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """[CLS] text [SEP], and [CLS] one [SEP] other [SEP]."""
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        save_span_finder(tmp_path_factory.mktemp("tokenizer"))
    )
    return found


def ids(text: str) -> tuple[int, ...]:
    return tuple(ID[word] for word in text.split())


def examples(task: TaskConfig, *rows: dict[str, Any], labelled: bool = True) -> tuple[Example, ...]:
    return read_examples(task, list(enumerate(rows)), labelled=labelled).usable


CLASSES = task_of("classification", labels=["good", "bad"])
TAGS = task_of("tagging", labels=["LOC", "PER"], template="{{ tokens | join(' ') }}")
SPANS = task_of("extractive_qa", template="{{ context }} {{ question }}")


def test_a_text_is_one_unit_with_its_label(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = examples(CLASSES, {"text": "sun rain", "label": "bad"})
    (read,) = read_with(tokenizer, rows, task=CLASSES, max_tokens=16)
    assert read.token_ids == ids("[CLS] sun rain [SEP]")
    assert (read.split, read.units, read.unit_tokens, read.gold, read.cut) == (4, (WHOLE,), (0,), (1,), False)


def test_without_a_label_nothing_is_gold(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = examples(CLASSES, {"text": "sun"}, labelled=False)
    assert read_with(tokenizer, rows, task=CLASSES, max_tokens=16)[0].gold == (-1,)
    words = examples(TAGS, {"tokens": ["sun", "oslo"]}, labelled=False)
    assert read_with(tokenizer, words, task=TAGS, max_tokens=16)[0].gold == (-1, -1)


def test_the_second_text_of_a_pair_begins_at_the_split(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of("classification", labels=["good", "bad"], fields={"label": "label", "second": "other"})
    rows = examples(task, {"text": "sun rain", "other": "oslo", "label": "good"})
    (read,) = read_with(tokenizer, rows, task=task, max_tokens=16)
    assert read.token_ids == ids("[CLS] sun rain [SEP] oslo [SEP]")
    assert read.split == 4


def test_a_tokenizer_that_joins_pairs_is_refused(tmp_path: Path) -> None:
    joined = AutoTokenizer.from_pretrained(save_classifier(tmp_path))
    joined.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    rows = examples(SPANS, {"context": "sun", "question": "where", "answers": ["sun"]})
    with pytest.raises(ConfigError, match="puts no token between the two texts of a pair"):
        read_with(joined, rows, task=SPANS, max_tokens=16)


def test_words_are_units_at_their_first_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"tokens": ["sunrain", "oslo", "rome", "sun", "rome"], "tags": ["O", "B-LOC", "I-LOC", "O", "B-PER"]}
    (read,) = read_with(tokenizer, examples(TAGS, row), task=TAGS, max_tokens=16)
    assert read.token_ids == ids("[CLS] sun ##rain oslo rome sun rome [SEP]")
    assert read.units == tuple((word, word) for word in range(5))
    assert read.unit_tokens == (1, 3, 4, 5, 6)
    labels = decision_labels(TAGS)
    assert labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert [labels[at] for at in read.gold] == row["tags"]


def test_a_row_without_an_entity_is_outside_everywhere(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = examples(TAGS, {"tokens": ["sun", "rain"], "tags": ["O", "O"]})
    assert read_with(tokenizer, rows, task=TAGS, max_tokens=16)[0].gold == (0, 0)


def test_a_span_is_the_tokens_that_its_characters_touch(tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"context": "sun rain sunrain oslo", "question": "where", "answers": ["nowhere", "rain sunrain"]}
    (read,) = read_with(tokenizer, examples(SPANS, row), task=SPANS, max_tokens=16)
    assert read.token_ids == ids("[CLS] where [SEP] sun rain sun ##rain oslo [SEP]")
    assert read.split == 3
    assert read.units == ((0, 3), (4, 8), (9, 12), (12, 16), (17, 21))
    assert read.unit_tokens == (3, 4, 5, 6, 7)
    assert read.gold == (1, 3)


@pytest.mark.parametrize("answer", ["oslo", "rome"])
def test_an_answer_that_is_not_seen_is_not_known(answer: str, tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"context": "sun rain oslo", "question": "where", "answers": [answer]}
    (read,) = read_with(tokenizer, examples(SPANS, row), task=SPANS, max_tokens=6)
    assert read.gold == (-1, -1)
    assert read.cut and read.units == ((0, 3), (4, 8))


def test_what_is_cut_is_said_and_its_units_go(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = examples(CLASSES, {"text": "sun " * 9, "label": "good"}, {"text": "sun", "label": "good"})
    long, short = read_with(tokenizer, rows, task=CLASSES, max_tokens=5)
    assert (long.cut, len(long.token_ids), short.cut) == (True, 5, False)
    tagged = examples(TAGS, {"tokens": ["sun"] * 9, "tags": ["O"] * 9})
    (read,) = read_with(tokenizer, tagged, task=TAGS, max_tokens=5)
    assert (read.cut, len(read.units), len(read.gold)) == (True, 3, 3)


def test_no_examples_are_read_as_none(tokenizer: PreTrainedTokenizerBase) -> None:
    assert read_with(tokenizer, (), task=CLASSES, max_tokens=5) == []


def test_tasks_that_are_answered_by_text_have_no_decisions() -> None:
    with pytest.raises(ConfigError, match="kind=generation is answered by text"):
        decision_labels(task_of("generation"))
