"""Students that give labels refuse nothing, and the audit says so and not nothing."""

from __future__ import annotations

import io
from pathlib import Path

from audited_task_runs import audited_task_run, bag, mood_rows

from orchestration.audits.kinds import KINDS, audit_run
from orchestration.audits.opening import open_audited
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.audits import read_audits
from orchestration.outputs.console import Console

(REFUSALS,) = (kind for kind in KINDS if kind.name == "refusals")


def test_it_is_one_line_that_it_does_not_apply(tmp_path: Path) -> None:
    rows = {"train": mood_rows(8, seed=0), "dev": mood_rows(4, seed=1), "test": mood_rows(4, seed=2)}
    run = open_audited(audited_task_run(tmp_path, rows, students={"bag": bag()}))
    made = audit_run(run, REFUSALS, settings=AuditSettings(), console=Console(io.StringIO()))
    (finding,) = made.findings
    assert (finding.model, finding.instrument) == ("every student", "refusals")
    assert finding.unknown is not None and finding.unknown.startswith("it does not apply: students of this task")
    kept = read_audits(run.directory).audits["refusals"]
    assert kept.findings[0].unknown == finding.unknown
