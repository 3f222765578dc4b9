"""Rouge-L against values worked out by hand from the longest common subsequence."""

from __future__ import annotations

import pytest

from evaluation.text import rouge_l


@pytest.mark.parametrize(
    ("answer", "reference", "common", "words"),
    [
        # (answer, reference, length of the longest common subsequence, words of both)
        ("the cat sat on the mat", "the cat sat on the mat", 6, (6, 6)),
        ("the cat sat on a mat", "the cat lay on the mat", 4, (6, 6)),
        ("mat the on sat cat the", "the cat sat on the mat", 3, (6, 6)),
        ("police kill the gunman", "police killed the gunman", 4, (4, 4)),
        ("one two", "one two three four five six", 2, (2, 6)),
        ("red", "blue", 0, (1, 1)),
    ],
)
def test_known_values(answer: str, reference: str, common: int, words: tuple[int, int]) -> None:
    precision, recall = common / words[0], common / words[1]
    f_measure = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l([answer], [reference]) == pytest.approx(100 * f_measure)


def test_case_and_punctuation_do_not_count() -> None:
    assert rouge_l(["Paris, of course!"], ["paris of course"]) == pytest.approx(100.0)


def test_it_is_the_mean_over_answers() -> None:
    assert rouge_l(["yes", "no", "red"], ["yes", "no", "blue"]) == pytest.approx(200 / 3)


def test_an_empty_answer_scores_nothing() -> None:
    assert rouge_l([""], ["something"]) == 0.0


@pytest.mark.parametrize(("answers", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_lists_that_do_not_match_are_refused(answers: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{len(answers)} answers for {len(references)} references"):
        rouge_l(answers, references)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("привет мир", "привет мир", 100.0),
        ("привет мой мир", "привет мир", 80.0),  # 2 of 3 and 2 of 2
        ("东京是首都", "东京首都", 100 * 8 / 9),  # 4 of 5 and 4 of 4
        ("привет", "мир", 0.0),
    ],
)
def test_other_scripts_are_measured(answer: str, reference: str, expected: float) -> None:
    assert rouge_l([answer], [reference]) == pytest.approx(expected)
