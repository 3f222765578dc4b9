"""A wide example is the example and what stands around it, which nobody sees who asks for the example alone."""

from __future__ import annotations

from dataclasses import replace

from task_builders import task_of

from evaluation.tasks.examples import read_examples
from evaluation.tasks.surroundings import Surroundings, WideExample, around_of

(PLAIN,) = read_examples(
    task_of("classification", labels=["good", "bad"]), [(3, {"text": "sun", "label": "good"})]
).usable
AROUND = Surroundings(before=(("rain",),), after=(("oslo",),), passage=("rome",))


def test_it_says_of_itself_what_the_example_says() -> None:
    wide = WideExample.of(PLAIN, AROUND)
    assert (wide.row, wide.text, wide.parts, wide.gold) == (3, "sun", ("sun",), ("good",))
    assert around_of(wide) == AROUND and around_of(PLAIN) == Surroundings()


def test_what_stands_around_it_stays_when_it_is_changed_or_made_wide_again() -> None:
    wide = replace(WideExample.of(PLAIN, AROUND), gold=("bad",))
    assert (wide.gold, wide.around) == (("bad",), AROUND)
    other = Surroundings(after=(("where",),))
    assert WideExample.of(wide, other).around == other


def test_equal_texts_of_two_places_are_two_examples() -> None:
    assert WideExample.of(PLAIN, AROUND) != WideExample.of(PLAIN, Surroundings()) != PLAIN
    assert len({WideExample.of(PLAIN, AROUND), WideExample.of(PLAIN, AROUND), PLAIN}) == 2
