"""What the card of a student that is given away says beyond its training: where it comes from, and what to know of it.

Who taught it, under what licence and with which settings stands in its card since it was trained. What is added here is
known only later: what audits found of it, what it took, and the run that all of it can be looked up in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from configs import ConfigError
from configs.model_files import CARD
from configs.places import SUMMARY
from configs.visible_text import visible
from evaluation.report.before_shipping import before_shipping
from evaluation.report.markdown import sections_in_markdown
from evaluation.results import RunResults
from evaluation.side_effects.findings import EVERY_STUDENT, Audited
from orchestration.comparison.audits import read_audits
from orchestration.comparison.report import read_results
from orchestration.lineage.records import Lineage, from_summary
from orchestration.outputs.artifacts import STUDENT
from orchestration.outputs.kept import OutdatedError, read_addressed


def complete_card(student: Path, *, card: Path) -> None:
    """Add to a card what is known of the student now; one that an earlier version made keeps the card that it has.

    Raises:
        OutdatedError: the student is not what was written.
    """
    found = read_addressed(student / SUMMARY, schema=STUDENT)
    if found is None:
        return
    address, fields = found
    try:
        lineage = from_summary(fields)
    except ValueError as error:
        raise OutdatedError(f"{student / SUMMARY}: {error}") from error
    if lineage is None:
        return
    said = [card.read_text(encoding="utf-8").rstrip(), _descent(address, lineage, fields)]
    run = student.resolve().parent.parent / lineage.run
    try:
        shown = _known(address, read_results(run), read_audits(run))
    except ConfigError:
        shown = "Its run was not compared: nothing is known of it beside its training.\n"
    card.write_text("\n\n".join([*said, shown]), encoding="utf-8")


def _descent(address: str, lineage: Lineage, fields: Mapping[str, object]) -> str:
    took = fields.get("took")
    joules = took.get("joules") if isinstance(took, Mapping) else None
    lines = [
        f"Student: `{address}`, of the run `{visible(lineage.run)}`",
        f"Code: {f'commit `{lineage.commit}`' if lineage.commit else 'installed, without a commit'}",
        f"Versions: {', '.join(f'{name} {version}' for name, version in lineage.versions.items())}",
        *(f"Learned: `{visible(name)}`, SHA-256 `{digest}`" for name, digest in lineage.learned.items()),
        *([f"Energy of its last stage: {joules / 3600:.3g} Wh"] if isinstance(joules, float) else []),
        f"Whether all of this still holds says `distill lineage` (with {CARD} left out)",
    ]
    return "## Where it comes from\n\n" + "\n".join(f"- {line}" for line in lines)


def _known(address: str, results: RunResults, audited: Audited) -> str:
    """The section of the report before shipping, of this student alone."""
    models = tuple(model for model in results.models if model.digest == address)
    names = {EVERY_STUDENT, *(model.name for model in models)}
    audits = {
        name: replace(
            audit,
            findings=tuple(finding for finding in audit.findings if finding.model in names),
            contrasts=tuple(each for each in audit.contrasts if names & {each.model, each.other_model}),
        )
        for name, audit in audited.audits.items()
    }
    section = before_shipping(
        [results.experiment], [replace(results, models=models)], [replace(audited, audits=audits)]
    )
    return sections_in_markdown([section])
