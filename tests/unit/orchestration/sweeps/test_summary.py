"""What is said of a sweep: the best first, who is on the front, what failed; hostile values stay text."""

from __future__ import annotations

from orchestration.sweeps.summary import Summary, best_trial, in_words, lines, markdown
from orchestration.sweeps.trials import Outcome, Trial

METRIC = "dev/forward_kl"


def trial(number: int, score: float, *, parameters: int = 100, tokens: int = 0) -> Trial:
    outcome = Outcome("", {METRIC: score}, parameters, 60.0, 2.5, tokens, f"runs/{number}")
    return Trial(number, {"students.kd.stages.0.learning_rate": 1e-4 * number}, outcome)


FAILED = Trial(9, {"students.kd.stages.0.learning_rate": 1.0}, Outcome.failed("no | memory", seconds=1.0))
TRIALS = (trial(0, 0.9, parameters=50), trial(1, 0.5), trial(2, 0.7, parameters=200, tokens=7), trial(3, 0.5), FAILED)


def summary() -> Summary:
    return Summary("small", METRIC, TRIALS, {"learning_rate": 0.75}, 1234, "runs/best")


def test_the_best_comes_first_and_the_earlier_of_equals() -> None:
    assert [trial.number for _, trial, _ in summary().ranked] == [1, 3, 2, 0]
    best = best_trial(TRIALS, metric=METRIC)
    assert best is not None and best.number == 1
    assert best_trial([FAILED], metric=METRIC) is None


def test_the_front_weighs_score_against_size() -> None:
    assert summary().front == {0, 1, 3}


def test_everything_that_matters_is_said() -> None:
    said = "\n".join(lines(summary()))
    assert "asked the teacher for 7 tokens" in said and "1,234" in said
    assert "learning_rate 75%" in said
    assert "Best: trial 1" in said and "0.5000" in said
    assert "Trial 9 failed: no | memory" in said


def test_a_page_keeps_what_strangers_wrote_as_text() -> None:
    page = markdown(summary())
    assert "no \\| memory" in page or "no &#124; memory" in page
    assert page.count("| 1 |") == 1


def test_values_are_named_as_shortly_as_they_can_be_told_apart() -> None:
    assert in_words({"students.kd.stages.0.steps": 5, "students.kd.init.keep_layers": 3}) == "steps=5, keep_layers=3"
    assert in_words({"students.kd.stages.0.learning_rate": 0.00020554062603827}) == "learning_rate=0.0002055"
    assert in_words({"students.a.stages.0.steps": 5, "students.b.stages.0.steps": 6}) == (
        "students.a.stages.0.steps=5, students.b.stages.0.steps=6"
    )
