from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import finished_run

from evaluation.metric import Measured, Metric
from evaluation.report.judged import Judged, Quality, judge, simplest
from evaluation.report.merging import Part, parts_of

SHARE = Metric("accuracy", "higher", "fraction", lambda sums: sums[..., 0] / sums[..., 1])


def quality(shares: dict[str, float], *, n: int = 100, headline: bool = True) -> Quality:
    def rows(share: float) -> Measured:
        hits = (np.arange(n) < share * n).astype(np.float64)
        return Measured(SHARE, np.stack([hits, np.ones(n)], axis=1))

    return Quality("intents", SHARE, {name: rows(share) for name, share in shares.items()}, "intents", headline)


@pytest.fixture(scope="module")
def part() -> Part:
    return parts_of([finished_run(prompts=2)])[0]


@pytest.fixture(scope="module")
def judged(part: Part) -> Judged:
    return judge(quality({"teacher": 0.9, "untouched": 0.3, "seqkd": 0.6, "kd": 0.6, "minillm": 0.2}), part)


def signs(judged: Judged, model: str) -> dict[str, str]:
    return {mark.against: mark.sign for mark in judged.marks(model)}


def test_every_student_is_held_against_teacher_start_and_the_simplest_method(judged: Judged) -> None:
    assert signs(judged, "seqkd") == {"teacher": "worse", "start": "better"}
    assert signs(judged, "kd") == {"teacher": "worse", "start": "better", "seqkd": "same"}
    assert signs(judged, "minillm") == {"teacher": "worse", "start": "worse", "seqkd": "worse"}
    assert signs(judged, "teacher") == signs(judged, "untouched") == {}


def test_a_mark_says_in_words_what_it_is_about(judged: Judged) -> None:
    words = {mark.against: mark.words for mark in judged.marks("kd")}
    assert words["start"].startswith("against untouched: better by +30.0 pp")
    assert words["seqkd"].startswith("against seqkd: no difference seen (n = 100")


def test_every_number_has_its_interval(judged: Judged) -> None:
    found = judged.estimates["teacher"]
    assert found.value == pytest.approx(0.9) and found.interval.low < 0.9 < found.interval.high


def test_only_headlines_are_held_against_baselines(part: Part) -> None:
    assert judge(quality({"teacher": 0.9, "kd": 0.1}, headline=False), part).held == {}


def test_a_model_of_other_examples_is_not_compared(part: Part) -> None:
    shares = quality({"teacher": 0.9, "kd": 0.1})
    fewer = replace(shares, measured={**shares.measured, "kd": quality({"kd": 0.1}, n=50).measured["kd"]})
    found = judge(fewer, part)
    assert found.held == {} and found.estimates["kd"].n == 50


def test_the_simplest_method_is_text_alone_and_gold_before_the_teachers() -> None:
    def of(methods: dict[str, str]) -> str | None:
        found = simplest(parts_of([finished_run(prompts=1, students=methods)])[0])
        return None if found is None else found.name

    assert of({"a": "kd", "b": "seqkd", "c": "sft"}) == "c"
    assert of({"a": "seqkd, minillm", "b": "seqkd"}) == "b"
    assert of({"a": "seqkd, minillm", "b": "kd"}) is None
