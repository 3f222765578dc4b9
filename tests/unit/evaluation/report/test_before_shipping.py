"""What has to be known of students before one is shipped: duties, what audits found, energy, and what nobody knows."""

from __future__ import annotations

import math
from dataclasses import replace

from results_builders import finished_run

from evaluation.report.before_shipping import NO_DIFFERENCE, TITLE, before_shipping
from evaluation.report.blocks import Folded, Lines, Section, Table
from evaluation.report.contents import contents
from evaluation.report.markdown import markdown_of
from evaluation.results import RunResults
from evaluation.side_effects.findings import NOT_AUDITED, Audit, Audited, Finding, unknown
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval


def between(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, Interval(low, high, "bca", 0.0), 80)


LEAKS = Finding(
    "privacy", "membership: loss", "seqkd", "seqkd", between(0.95, 0.92, 0.97), between(0.52, 0.47, 0.57),
    between(0.5, 0.45, 0.55), between(0.43, 0.37, 0.49), "fraction", "50 % is what guessing gives", None,
)  # fmt: skip
LIKE = replace(LEAKS, model="kd", value=between(0.54, 0.49, 0.59), difference=between(0.02, -0.04, 0.08), method="kd")
NOTHING = unknown(
    audit="bias",
    instrument="pairs",
    model="kd",
    method="kd",
    unit="fraction",
    meaning="50 % prefers neither",
    why="no pair names a group of this task",
)
AUDITED = Audited({"privacy": Audit("privacy", {}, (LEAKS, LIKE), ("Rows were cut to 64 tokens.",))})


def section(run: RunResults, found: Audited) -> Section:
    return before_shipping(["quickstart"], [run], [found])


def lines(shown: Section, title: str) -> tuple[str, ...]:
    return next(block.lines for block in shown.blocks if isinstance(block, Lines) and block.title == title)


def test_a_leak_stands_in_words_and_in_the_table_beside_what_is_none() -> None:
    shown = section(finished_run(prompts=2), AUDITED)
    assert lines(shown, "Where a student differs from its teacher") == (
        "seqkd, membership: loss: 95.0 %, its teacher 52.0 %, +43.0 pp (+37.0 to +49.0 pp)",
    )
    folded = next(block for block in shown.blocks if isinstance(block, Folded))
    table = folded.blocks[0]
    assert isinstance(table, Table)
    assert [row.title for row in table.rows] == ["seqkd", "kd"]
    assert [cell.text for cell in table.rows[1].cells] == ["membership: loss", "54.0 %", "52.0 %", "50.0 %", "+2.0 pp"]
    assert "50 % is what guessing gives" in str(folded.blocks) and "cut to 64 tokens" in str(folded.blocks)


def test_where_nothing_differs_that_is_said_and_not_left_open() -> None:
    shown = section(finished_run(prompts=2), Audited({"privacy": Audit("privacy", {}, (LIKE,), ())}))
    assert lines(shown, "Where a student differs from its teacher") == (NO_DIFFERENCE,)


def test_a_student_that_differs_to_the_other_side_is_named_too() -> None:
    less = replace(LEAKS, difference=between(-0.1, -0.2, -0.05))
    shown = section(finished_run(prompts=2), Audited({"privacy": Audit("privacy", {}, (less,), ())}))
    assert "-10.0 pp (-20.0 to -5.0 pp)" in lines(shown, "Where a student differs from its teacher")[0]


def test_what_was_not_measured_is_never_silence() -> None:
    found = Audited({"bias": Audit("bias", {}, (NOTHING,), ())}, ("runs/x/audits/refusals.json: was edited",))
    said = lines(section(finished_run(prompts=2), found), "Not known")
    assert said == (
        "privacy: was not looked at. distill audit privacy RUN does, and distill report RUN then shows it.",
        "kd, pairs: no pair names a group of this task",
        "runs/x/audits/refusals.json: was edited",
        "personal data and secrets: nobody looked for them in data or answers (the block privacy does).",
    )
    looked = replace(finished_run(prompts=2), settings={"privacy.prompts": "count"})
    assert not any("personal data" in line for line in lines(section(looked, found), "Not known"))
    assert not any(isinstance(block, Folded) for block in section(finished_run(prompts=2), found).blocks)


def test_duties_and_licences_that_nobody_knows() -> None:
    run = finished_run(prompts=2)
    assert (
        "Apache-2.0, which asks nothing of what learned from its answers alone"
        in lines(section(run, Audited({})), "Licence")[0]
    )
    duty = "teacher: Llama is under llama3.3, and so of every student: its name begins with Llama"
    owing = replace(run, provenance=replace(run.provenance, licence_terms=(duty,)))
    assert lines(section(owing, Audited({})), "Licence")[0] == duty
    unstated = replace(run, provenance=replace(run.provenance, teacher_licence=None))
    assert "No licence is known of" in lines(section(unstated, Audited({})), "Licence")[0]
    task = replace(run.tasks[0], licence=None)
    said = lines(section(replace(run, tasks=(task,)), Audited({})), "Not known")
    assert said[-1] == f"licence of the data of {task.name}: the task does not state it."


def test_who_looked_for_personal_data_is_not_told_that_nobody_did() -> None:
    run = finished_run(prompts=2)
    for settings, count in (({}, 1), ({"privacy.prompts": "count"}, 0)):
        said = lines(section(replace(run, settings={**run.settings, **settings}), Audited({})), "Not known")
        assert sum(line.startswith("personal data and secrets") for line in said) == count


def test_energy_is_that_of_the_run_and_of_each_student_or_is_said_not_to_be_known() -> None:
    run = finished_run(prompts=2)
    said = lines(section(run, Audited({})), "Energy")
    assert said[0].startswith("This run took") and "would have taken" in said[1] and said[-1].startswith("minillm: ")
    dark = replace(
        run,
        models=tuple(replace(model, training=None) for model in run.models),
        cost=replace(run.cost, stages=tuple(replace(stage, joules=math.nan) for stage in run.cost.stages)),
    )
    assert lines(section(dark, Audited({})), "Energy")[-1] == "Nothing is known."
    assert "energy: nothing here could measure it." in lines(section(dark, Audited({})), "Not known")


def test_of_several_runs_each_block_says_whose_it_is() -> None:
    runs = [finished_run(experiment=name, prompts=2) for name in ("one", "other")]
    shown = before_shipping(["one", "other"], runs, [NOT_AUDITED] * 2)
    titles = [block.title for block in shown.blocks if isinstance(block, Lines)]
    assert "Licence (one)" in titles and "Not known (other)" in titles


def test_it_stands_on_the_page() -> None:
    run = finished_run(prompts=2)
    assert TITLE in [section.title for section in contents([run])]
    page = markdown_of("A report", contents([run], [AUDITED])).replace("\\", "")
    assert "seqkd, membership: loss: 95.0 %" in page and "| kd" in page
