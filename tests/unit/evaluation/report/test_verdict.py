from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results_builders import finished_run, task_model, task_run, with_holes

from evaluation.metric import Measured, Metric
from evaluation.qualities import Quality, qualities
from evaluation.report.blocks import Verdict
from evaluation.report.contents import contents
from evaluation.report.judged import Judged, judge
from evaluation.report.merging import Part, parts_of
from evaluation.report.verdict import DEV, RULE, choose, verdict
from evaluation.results import ModelResults, RunResults
from evaluation.shipping import ship
from evaluation.verdict import Opinion, opinions_of, verdicts

SHARE = Metric("accuracy", "higher", "fraction", lambda sums: sums[..., 0] / sums[..., 1])


def with_dev(model: ModelResults, value: float | None) -> ModelResults:
    if model.training is None:
        return model
    curves = {} if value is None else {DEV: ((0, 9.0), (10, value))}
    return replace(model, training=replace(model.training, curves=curves))


def part_of(dev: dict[str, float | None] | None = None) -> Part:
    run = finished_run(prompts=2)
    dev = dev or {}
    return parts_of([replace(run, models=tuple(with_dev(model, dev.get(model.name)) for model in run.models))])[0]


def judged(part: Part, **shares: float) -> list[Judged]:
    def rows(share: float) -> Measured:
        hits = (np.arange(100) < share * 100).astype(np.float64)
        return Measured(SHARE, np.stack([hits, np.ones(100)], axis=1))

    quality = Quality("intents", SHARE, {name: rows(share) for name, share in shares.items()}, "intents", headline=True)
    return [judge(quality, part)]


def opinions(part: Part, *worse: str) -> dict[str, Opinion]:
    return {
        model.name: Opinion(f"{model.name}: so and so.", model.name in worse)
        for model in part.results.models
        if model.role == "student"
    }


def said(part: Part, found: list[Judged], *worse: str) -> tuple[str, ...]:
    thought = opinions(part, *worse)
    return verdict(part, found, choose(part, found, thought), thought)


def test_the_student_is_chosen_on_dev_even_where_another_is_better_on_test() -> None:
    part = part_of({"seqkd": 0.5, "kd": 0.3, "minillm": 0.4})
    found = judged(part, teacher=0.9, untouched=0.2, seqkd=0.7, kd=0.6, minillm=0.8)
    choice = choose(part, found, opinions(part))
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


def test_what_is_said_of_each_student_stands_below_it_in_the_same_words() -> None:
    part = part_of({"seqkd": 0.5, "kd": 0.3, "minillm": 0.4})
    lines = said(part, judged(part, teacher=0.9, untouched=0.2, seqkd=0.7, kd=0.6, minillm=0.8))
    assert lines[1:-1] == ("seqkd: so and so.", "kd: so and so.", "minillm: so and so.")


def test_the_page_says_what_the_terminal_says() -> None:
    run = finished_run(prompts=12)
    block = contents([run])[0].blocks[0]
    assert isinstance(block, Verdict)
    assert block.lines[1:-1] == tuple(opinion.sentence for opinion in verdicts(run).values())


def test_a_student_that_got_worse_than_its_start_is_never_chosen() -> None:
    part = part_of({"seqkd": 0.5, "kd": 0.1, "minillm": 0.4})
    lines = said(part, judged(part, teacher=0.9, untouched=0.5, seqkd=0.7, kd=0.2, minillm=0.8), "kd")
    assert lines[0].startswith("Ship minillm") and "kd: so and so." in lines


def test_when_all_got_worse_none_is_to_be_shipped() -> None:
    part = part_of()
    lines = said(part, judged(part, teacher=0.9, kd=0.2), "seqkd", "kd", "minillm")
    assert lines[0].startswith("Ship none")
    assert lines[1:] == ("seqkd: so and so.", "kd: so and so.", "minillm: so and so.")


@pytest.mark.parametrize("bare", [False, True])
def test_without_numbers_or_students_it_says_so(bare: bool) -> None:
    run: RunResults = with_holes(finished_run(prompts=2))
    if bare:
        run = replace(run, models=run.models[:2])
    part = parts_of([run])[0]
    first, *others = said(part, [])
    assert len(others) == (0 if bare else 3)
    assert first.startswith("There is no student to ship" if bare else "Nothing was measured")


def test_a_student_of_a_task_is_chosen_by_the_rule_of_shipping() -> None:
    run = task_run(
        task_model("teacher", role="teacher", right=90, text_s=0.02),
        task_model("large", right=88, text_s=0.01),
        task_model("bag", right=86, text_s=0.001),
    )
    part = parts_of([run])[0]
    measured = qualities(run)
    judged, opinions = [judge(each, part) for each in measured], opinions_of(run.models, measured)
    choice = choose(part, judged, opinions)
    assert choice.student is not None and (choice.student.name, choice.split) == ("bag", "dev")
    first, *sentences, rule = verdict(part, judged, choice, opinions)
    assert first == ship(run).sentence and first.startswith("Ship bag: it keeps 96 %")
    assert sentences == [opinions["large"].sentence, opinions["bag"].sentence] and rule == RULE
