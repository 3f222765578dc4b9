from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import run_results, with_holes

from evaluation.metric import Measured, Metric
from evaluation.report.judged import Judged, Quality, judge
from evaluation.report.merging import Part, parts_of
from evaluation.report.verdict import DEV, choose, verdict
from evaluation.results import ModelResults, RunResults

SHARE = Metric("accuracy", "higher", "fraction", lambda sums: sums[..., 0] / sums[..., 1])


def with_dev(model: ModelResults, value: float | None) -> ModelResults:
    if model.training is None:
        return model
    curves = {} if value is None else {DEV: ((0, 9.0), (10, value))}
    return replace(model, training=replace(model.training, curves=curves))


def part_of(dev: dict[str, float | None] | None = None) -> Part:
    run = run_results(prompts=2)
    dev = dev or {}
    return parts_of([replace(run, models=tuple(with_dev(model, dev.get(model.name)) for model in run.models))])[0]


def judged(part: Part, **shares: float) -> list[Judged]:
    def rows(share: float) -> Measured:
        hits = (np.arange(100) < share * 100).astype(np.float64)
        return Measured(SHARE, np.stack([hits, np.ones(100)], axis=1))

    quality = Quality("intents", SHARE, {name: rows(share) for name, share in shares.items()}, "intents", headline=True)
    return [judge(quality, part)]


def said(part: Part, found: list[Judged]) -> tuple[str, ...]:
    return verdict(part, found, choose(part, found))


def test_the_student_is_chosen_on_dev_even_where_another_is_better_on_test() -> None:
    part = part_of({"seqkd": 0.5, "kd": 0.3, "minillm": 0.4})
    found = judged(part, teacher=0.9, untouched=0.2, seqkd=0.7, kd=0.6, minillm=0.8)
    choice = choose(part, found)
    assert choice.student is not None and (choice.student.name, choice.split) == ("kd", "dev")
    first, *others = said(part, found)
    assert first.startswith("Ship kd: intents 60.0 % (teacher 90.0 %)")
    assert "4.7 times fewer parameters" in first
    assert others[-1] == "kd was chosen by its divergence from the teacher on the dev split."


def test_a_choice_on_test_is_said_to_be_one() -> None:
    part = part_of({"seqkd": 0.5, "kd": None, "minillm": 0.4})
    lines = said(part, judged(part, teacher=0.9, untouched=0.2, seqkd=0.7, kd=0.6, minillm=0.8))
    assert lines[0].startswith("Ship minillm")
    assert "too good" in lines[-1]


def test_a_student_that_got_worse_than_its_start_is_named_and_never_chosen() -> None:
    part = part_of({"seqkd": 0.5, "kd": 0.1, "minillm": 0.4})
    lines = said(part, judged(part, teacher=0.9, untouched=0.5, seqkd=0.7, kd=0.2, minillm=0.8))
    assert lines[0].startswith("Ship minillm")
    assert "kd got worse than its own start in intents." in lines
    assert "kd is beaten by the simpler method seqkd in intents." in lines


def test_a_simpler_method_that_is_as_good_is_said_so() -> None:
    part = part_of({"seqkd": 0.5, "kd": 0.6, "minillm": 0.4})
    lines = said(part, judged(part, teacher=0.9, untouched=0.2, seqkd=0.7, kd=0.7, minillm=0.71))
    assert any(
        line.startswith("minillm against the simpler method seqkd: no difference seen in intents (n = 100")
        for line in lines
    )
    assert "kd is not seen to be better than the simpler method seqkd in anything." in lines


def test_when_all_got_worse_none_is_to_be_shipped() -> None:
    part = part_of()
    lines = said(part, judged(part, teacher=0.9, untouched=0.8, seqkd=0.3, kd=0.2, minillm=0.1))
    assert lines[0].startswith("Ship none")
    assert "kd against its own start (untouched): worse in intents." in lines


@pytest.mark.parametrize("bare", [False, True])
def test_without_numbers_or_students_it_says_so(bare: bool) -> None:
    run: RunResults = with_holes(run_results(prompts=2))
    if bare:
        run = replace(run, models=run.models[:2])
    part = parts_of([run])[0]
    (line,) = said(part, [])
    assert line.startswith("There is no student to ship" if bare else "Nothing was measured")
