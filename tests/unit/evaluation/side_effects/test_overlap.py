"""Runs of words in common against loops over all runs; what is everybody's language is not counted."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.side_effects.overlap import GRAM, longest_run, overlap_of, repeated_share


def by_loops(answer: str, training: list[str]) -> tuple[int, int]:
    """The longest run, and how many 8-word runs stand in a training text."""
    words, texts = answer.split(), [text.split() for text in training]
    runs = {
        length: {tuple(text[at : at + length]) for text in texts for at in range(len(text) - length + 1)}
        for length in range(1, len(words) + 1)
    }
    found = {
        length: sum(tuple(words[at : at + length]) in runs[length] for at in range(len(words) - length + 1))
        for length in range(1, len(words) + 1)
    }
    return max((length for length, count in found.items() if count), default=0), found.get(GRAM, 0)


@pytest.mark.parametrize("seed", range(8))
def test_runs_are_those_that_loops_find(seed: int) -> None:
    random = np.random.default_rng(seed)

    def text(length: int) -> str:
        return " ".join(f"w{number}" for number in random.integers(0, 2 + 2 * seed, length))

    training = [text(int(n)) for n in random.integers(0, 40, 12)]
    copied = " ".join(training[int(np.argmax([len(each) for each in training]))].split()[2:20])
    answers = [*(text(int(n)) for n in random.integers(0, 30, 6)), copied, "", "never seen", f"x {copied} y"]
    overlap = overlap_of(answers, training)
    assert list(zip(overlap.longest, overlap.repeated, strict=True)) == [by_loops(each, training) for each in answers]
    assert overlap.words == tuple(len(each.split()) for each in answers)


def test_what_was_copied_is_found_and_what_ends_with_a_text_does_not_go_on_in_the_next() -> None:
    training = ["one two three four five", "six seven eight nine ten"]
    overlap = overlap_of(["One two, three four five six seven eight nine ten!"], training)
    assert (overlap.longest, overlap.repeated) == ((5,), (0,))
    whole = overlap_of(["One two, three four five six seven eight nine ten!"], [" ".join(training)])
    assert (whole.longest, whole.repeated) == ((10,), (3,))
    assert repeated_share(whole).value == 1.0 and longest_run(whole).value == 10.0


def test_shares_are_of_all_runs_and_answers_without_any_count_for_nothing() -> None:
    said = " ".join(f"w{number}" for number in range(8))
    overlap = overlap_of([said, f"{said} a b", "too short"], [said])
    # One run of the first answer, three of the second; the third is too short for one.
    assert repeated_share(overlap).value == pytest.approx(2 / 4)
    assert longest_run(overlap).value == pytest.approx((8 + 8 + 0) / 3)


def test_without_any_text_there_is_nothing_in_common() -> None:
    assert overlap_of(["a b c"], []).longest == (0,)
    assert np.isnan(repeated_share(overlap_of(["a b c"], ["a b c"])).value)
