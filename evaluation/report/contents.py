"""What stands in a report, in its order: for each group of runs that can be compared, and then for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evaluation.qualities import qualities
from evaluation.report.analysis import analysis_section
from evaluation.report.before_shipping import before_shipping
from evaluation.report.blocks import Block, Paragraph, Section, Verdict
from evaluation.report.closeness import calibration_section, closeness_section, exposure_section
from evaluation.report.cost import cost_section
from evaluation.report.curves import curves_section
from evaluation.report.inside import inside_section
from evaluation.report.judged import judge
from evaluation.report.labels import confidence_section, labels_section
from evaluation.report.merging import Part, parts_of, run_names
from evaluation.report.overview import MARKS_SAY, comparison_table, pareto_blocks
from evaluation.report.provenance import failures_section, limits_section, provenance_section
from evaluation.report.samples import samples_section
from evaluation.report.settings import settings_section
from evaluation.report.tasks import tasks_section
from evaluation.report.timeline import timeline_section
from evaluation.report.verdict import choose, verdict
from evaluation.results import RunResults
from evaluation.shipping import distils_a_task
from evaluation.side_effects.findings import NOT_AUDITED, Audited
from evaluation.statistics import Resampling
from evaluation.verdict import opinions_of


def contents(runs: Sequence[RunResults], audited: Sequence[Audited] | None = None) -> tuple[Section, ...]:
    """The sections of a report; `audited` is what audits found of each run, in the same order.

    Raises:
        ValueError: there are no runs, or audits of other runs.
    """
    if not runs:
        raise ValueError("a report needs a run")
    parts = parts_of(runs)
    sections: list[Section] = []
    for part in parts:
        of = f": {part.title}" if len(parts) > 1 else ""
        sections += [
            replace(section, key=f"{part.key}{section.key}", title=f"{section.title}{of}")
            for section in _sections_of(part)
        ]
    found = [NOT_AUDITED] * len(runs) if audited is None else audited
    sections.append(before_shipping(run_names(runs), runs, found))
    sections += [settings_section(runs), provenance_section(runs), failures_section(parts), limits_section(parts)]
    return tuple(sections)


def title_of(runs: Sequence[RunResults]) -> str:
    """The names of the experiments."""
    return ", ".join(dict.fromkeys(run.experiment for run in runs))


def _sections_of(part: Part) -> list[Section]:
    how = Resampling()
    measured = qualities(part.results, how=how)
    judged = [judge(quality, part) for quality in measured]
    opinions = opinions_of(part.results.models, measured)
    choice = choose(part, judged, opinions)
    chosen = None if choice.student is None else choice.student.name
    blocks: list[Block] = [
        Verdict(verdict(part, judged, choice, opinions)),
        comparison_table(part, judged, chosen=chosen),
        *([Paragraph(part.results.held_against)] if part.results.held_against else []),
        Paragraph(MARKS_SAY),
        *pareto_blocks(part, judged),
    ]
    first = [
        Section("verdict", "Which student to ship", tuple(blocks)),
        tasks_section(part, judged),
        analysis_section(part),
    ]
    timeline = timeline_section(part)
    when = [] if timeline is None else [timeline]
    if distils_a_task(part.results):
        # Its models were asked nothing but the task: there is no closeness, no exposure and no text of theirs.
        own = (labels_section(part), confidence_section(part, how), inside_section(part))
        there = [section for section in own if section is not None]
        return [*first, *there, curves_section(part), cost_section(part), *when]
    return [
        *first,
        closeness_section(part, judged),
        calibration_section(part),
        exposure_section(part),
        samples_section(part),
        curves_section(part),
        cost_section(part),
        *when,
    ]
