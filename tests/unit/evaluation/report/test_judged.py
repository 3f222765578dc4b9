from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import finished_run, task_model, task_run

from evaluation import qualities as module
from evaluation.analysis.entries import SIMPLER, entries_of
from evaluation.metric import Measured, Metric
from evaluation.qualities import Quality, qualities
from evaluation.report.judged import Judged, judge
from evaluation.report.merging import Part, parts_of
from evaluation.statistics import Difference, Resampling, compare_models
from evaluation.verdict import opinions_of

SHARE = Metric("accuracy", "higher", "fraction", lambda sums: sums[..., 0] / sums[..., 1])


def quality(shares: dict[str, float], *, n: int = 100, headline: bool = True) -> Quality:
    def rows(share: float) -> Measured:
        hits = (np.arange(n) < round(share * n)).astype(np.float64)
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


def test_one_of_several_teachers_is_called_by_its_name() -> None:
    run = finished_run(prompts=2)
    teacher = run.models[0]
    several = replace(run, models=(teacher, replace(teacher, name="second", digest="b"), *run.models[1:]))
    found = judge(quality({"teacher": 0.9, "second": 0.5, "kd": 0.6}), parts_of([several])[0])
    assert signs(found, "kd") == {"teacher": "worse", "second": "better"}
    words = {mark.against: mark.words for mark in found.marks("kd")}
    assert words["second"].startswith("against second: better by +10.0 pp")


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


def test_page_and_comparison_hold_a_student_against_the_same_simplest_method() -> None:
    run = finished_run(prompts=1, students={"sft": "sft", "seqkd": "seqkd", "kd": "seqkd, kd", "own": "kd"})
    shares = dict.fromkeys(("teacher", "untouched", "sft", "seqkd", "kd", "own"), 0.5)
    found = judge(quality(shares), parts_of([run])[0]).held
    page = {name: next((h.name for h in held if h.baseline == "simplest"), None) for name, held in found.items()}
    compared = {e.model.name: e.baselines.get(SIMPLER) for e in entries_of({"run": run}) if e.model.role == "student"}
    assert page == compared
    assert (page["sft"], page["seqkd"], page["kd"]) == (None, "sft", "sft")


def test_marks_and_sentences_rest_on_the_same_p_at_the_margin() -> None:
    """Six rows of one direction give p = 2 / 2^6 = 0.031, which Holm's correction over two students makes 0.0625."""
    found = parts_of([finished_run(prompts=1)])[0]
    hits = {"teacher": 90, "untouched": 20, "seqkd": 50, "kd": 56, "minillm": 50}
    intents = quality({name: count / 100 for name, count in hits.items()})
    (held,) = (each for each in judge(intents, found).held["kd"] if each.baseline == "simplest")
    assert (held.difference.p, held.difference.p_holm) == (2 / 64, 4 / 64)
    opinions = opinions_of(found.results.models, [intents])
    assert signs(judge(intents, found), "kd")["seqkd"] == "same"
    assert "equalled by seqkd, whose method is simpler" in opinions["kd"].sentence


def test_a_difference_is_made_once_whoever_asks(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(baseline: Measured, models: dict[str, Measured], how: Resampling) -> dict[str, Difference]:
        made.append(tuple(models))
        return compare_models(baseline, models, how)

    monkeypatch.setattr(module, "compare_models", counted)
    intents = quality({"teacher": 0.9, "untouched": 0.3, "seqkd": 0.6, "kd": 0.6, "minillm": 0.2})
    judge(intents, part)
    # Against teacher, start, and the simplest method.
    assert made == [("seqkd", "kd", "minillm")] * 2 + [("kd", "minillm")]
    opinions_of(part.results.models, [intents])
    assert len(made) == 3


def test_a_student_is_held_against_its_own_twin_of_gold_labels() -> None:
    run = task_run(
        task_model("teacher", role="teacher", right=90),
        task_model("bag", right=88), task_model("bag-gold", right=60, method="hard_labels"),
        task_model("lstm", right=70), task_model("lstm-gold", right=70, method="hard_labels"),
    )  # fmt: skip
    part = parts_of([run])[0]
    quality = next(each for each in qualities(run, how=Resampling(draws=300)) if each.headline)
    found = judge(quality, part)
    against = {
        name: [(held.name, held.difference.verdict) for held in found.held[name] if held.baseline == "simplest"]
        for name in ("bag", "bag-gold", "lstm", "lstm-gold")
    }
    assert against == {
        "bag": [("bag-gold", "better")], "bag-gold": [], "lstm": [("lstm-gold", "no difference seen")], "lstm-gold": [],
    }  # fmt: skip


def test_a_student_is_held_against_augmentation_alone_too() -> None:
    run = task_run(
        task_model("teacher", role="teacher", right=90),
        task_model("bag", right=88),
        task_model("bag-gold", right=60, method="hard_labels"),
        task_model("bag-augmented", right=65, method="hard_labels"),
    )
    quality = next(each for each in qualities(run, how=Resampling(draws=300)) if each.headline)
    found = judge(quality, parts_of([run])[0]).held["bag"]
    assert [held.name for held in found if held.baseline == "simplest"] == ["bag-gold", "bag-augmented"]
