"""What the grammar of a task lets an engine write, the parser of the task reads, and nothing else is let through."""

from __future__ import annotations

from typing import Any

import llguidance
import llguidance.hf
import pytest
from task_builders import task_of

from configs import ConfigError
from configs.task import TaskConfig
from evaluation.tasks.answer_grammar import answer_grammar
from evaluation.tasks.examples import Example, read_examples
from evaluation.tasks.parsing import answer_reader
from orchestration.inputs.random_models import byte_tokenizer

TOKENIZER = byte_tokenizer()
MATCHES = llguidance.hf.from_tokenizer(TOKENIZER, len(TOKENIZER))

MOODS = task_of("classification", labels={"good": "sun", "bad": "sun and rain"}, chat=True)
PLACES = task_of("tagging", labels={"PER": "person", "LOC": "place"}, template="{{ tokens | join(' ') }}", chat=True)
READING = task_of("extractive_qa", template="{{ context }} {{ question }}", chat=True)


def example(task: TaskConfig, **row: Any) -> Example:
    plain = {"text": "x", "label": "good", "question": "q", "answers": ["a"]}
    (found,) = read_examples(task, [(0, plain | row)]).usable
    return found


def allows(grammar: str, text: str) -> bool:
    """Whether a whole answer is one of the grammar."""
    matcher = llguidance.LLMatcher(MATCHES, llguidance.grammar_from("grammar", grammar))
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


def test_a_label_is_written_by_its_words() -> None:
    grammar = answer_grammar(MOODS)(example(MOODS))
    read = answer_reader(MOODS)
    for answer, label in (("sun", "good"), ("sun and rain", "bad")):
        assert allows(grammar, answer) and read(answer, ()) == (label,)
    for other in ("", "sun and", " sun", "good", "Sun", "sun."):
        assert not allows(grammar, other)


def test_behind_a_plain_text_an_answer_may_begin_with_a_space() -> None:
    plain = MOODS.model_copy(update={"chat": False})
    grammar = answer_grammar(plain)(example(plain))
    assert allows(grammar, " sun") and allows(grammar, "sun") and not allows(grammar, "  sun")


def test_entities_are_words_of_the_row_line_by_line() -> None:
    row = example(PLACES, tokens=["Ada", "of", "New", "York", "(", 'said "no"', ")"], tags=["O"] * 7)
    grammar = answer_grammar(PLACES)(row)
    read = answer_reader(PLACES)
    for answer, found in (
        ("none", ()),
        ("person: Ada", ("0 1 PER",)),
        ("person: Ada\n", ("0 1 PER",)),
        ("person: Ada\nplace: New York", ("0 1 PER", "2 4 LOC")),
        ('place: ( said "no"', ("4 6 LOC",)),
    ):
        assert allows(grammar, answer) and read(answer, row.tokens) == found
    for other in ("", "person:", "person: Ada York", "person: Ad", "PER: Ada", "person: Ada\n\n", "none\nperson: Ada"):
        assert not allows(grammar, other)


def test_entities_are_no_more_than_the_tokens_of_the_row() -> None:
    grammar = answer_grammar(PLACES)(example(PLACES, tokens=["Ada", "in", "Rome"], tags=["O"] * 3))
    line = "person: Ada\n"
    assert all(allows(grammar, line * count) for count in (1, 2, 3)) and not allows(grammar, line * 4)
    one = answer_grammar(PLACES)(example(PLACES, tokens=["Ada"], tags=["O"]))
    assert allows(one, line) and not allows(one, line * 2)


def test_the_answer_to_a_question_stands_in_one_line_of_its_passage() -> None:
    context = 'It was "blue" (of a kind).\n\nThen 30,000 people left\\stayed.'
    row = example(READING, context=context, answers=["blue"])
    grammar = answer_grammar(READING)(row)
    read = answer_reader(READING)
    for answer in ("blue", '"blue" (of', "30,000 people", "left\\stayed.", "It", "blue\n"):
        assert allows(grammar, answer)
        (found,) = read(answer, ()) or ("",)
        assert found in context
    for other in ("", " ", "blu", "kind).\n\nThen", "blue\n\n", "blue blue", "yellow"):
        assert not allows(grammar, other)


@pytest.mark.parametrize(
    "task",
    [
        task_of("classification", labels=["a", "b"], parser={"kind": "pattern", "regex": r"answer: (\w+)"}),
        task_of("extractive_qa", parser={"kind": "number"}),
        task_of("tagging", labels={"PER": "person: human"}, template="{{ tokens }}"),
    ],
)
def test_answers_of_another_form_are_not_held_to_one(task: TaskConfig) -> None:
    with pytest.raises(ConfigError, match=r"no grammar is made of: set teacher\.constrained: false"):
        answer_grammar(task)
