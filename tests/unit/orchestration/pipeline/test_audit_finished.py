"""Audits that are named when an experiment is finished are made alone; what is kept is not opened again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audited_runs import audited_run, write_rows

from configs import DataError, DistillConfig, dump_config, load_config
from configs.places import WRITTEN
from evaluation.side_effects.findings import Audit
from orchestration import entry
from orchestration.audits.kinds import KINDS
from orchestration.audits.opening import open_audited
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.audits import audit_path, write_audit
from orchestration.comparison.report import Report, read_report
from orchestration.pipeline import audit_finished as module
from orchestration.pipeline import late_audits
from orchestration.pipeline.audit_finished import audit_finished

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_rows(tmp_path, train=8, dev=6, test=6)
    found = audited_run(tmp_path, by_heart=False)
    monkeypatch.setattr(module, "directory_of", lambda *_: found)
    return found


def asking(directory: Path, **audit: Any) -> DistillConfig:
    config = load_config(directory / WRITTEN)
    return DistillConfig.model_validate(config.model_dump(mode="json") | {"audit": audit})


def report_in(directory: Path) -> Report:
    report = read_report(directory)
    assert report is not None
    return report


def keep(directory: Path, config: DistillConfig) -> None:
    """Leave the audits of a configuration as if they had been made."""
    run, settings = open_audited(directory), AuditSettings.of(config.audit, device="cpu")
    for kind in KINDS:
        write_audit(Audit(kind.name, kind.rests_on(run, settings), (), ()), directory)


SHOW = """
import sys
from pathlib import Path
from configs import load_config
from orchestration.comparison.report import read_report
from orchestration.pipeline import audit_finished as module
config, directory = Path(sys.argv[1]), Path(sys.argv[2])
module.directory_of = lambda *_: directory
report = read_report(directory)
assert module.audit_finished(load_config(config), config_dir=directory, report=report) is report
print([name for name in sys.argv[3:] if name in sys.modules])
"""


def test_audits_that_are_kept_are_found_without_any_library_that_computes(directory: Path, tmp_path: Path) -> None:
    config = asking(directory, run=["privacy", "bias", "refusals"])
    keep(directory, config)
    (tmp_path / "asking.yaml").write_text(dump_config(config))
    heavy = ("torch", "transformers", "ray", "mlflow", "vllm", "deepspeed", "datasets", "nltk", "sklearn", "pandas")
    heavy += ("scipy.stats", "matplotlib")
    command = [sys.executable, "-c", SHOW, str(tmp_path / "asking.yaml"), str(directory), *heavy]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_one_that_is_not_kept_is_made(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, report = asking(directory, run=["privacy", "bias"]), report_in(directory)
    keep(directory, config)
    late: list[str] = []
    monkeypatch.setattr(late_audits, "make_late_audits", lambda report, *_, **__: late.append("made") or report)
    assert audit_finished(config, config_dir=directory, report=report) is report
    assert late == []
    audit_path(directory, "bias").unlink()
    assert audit_finished(config, config_dir=directory, report=report) is report
    assert late == ["made"]


def test_a_file_of_pairs_that_is_none_is_refused_in_one_line(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    config = asking(directory, run=["bias"], pairs=[str(tmp_path / "pairs.csv")])
    with pytest.raises(DataError, match=r"audit\.pairs\.0: .*pairs\.csv is none of CrowS-Pairs"):
        audit_finished(config, config_dir=directory, report=report_in(directory))


@pytest.mark.parametrize(("until", "audit", "called"), [("eval", True, 1), ("train", True, 0), ("eval", False, 0)])
def test_only_a_whole_run_of_an_experiment_that_names_audits_looks_for_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch, until: Any, audit: bool, called: int
) -> None:
    config = asking(directory, run=["bias"]) if audit else load_config(directory / WRITTEN)
    looked: list[str] = []
    report = report_in(directory)

    def audited(*_: Any, report: Report, **__: Any) -> Report:
        looked.append("looked")
        return report

    monkeypatch.setattr("orchestration.comparison.show.show_finished", lambda *_, **__: report)
    monkeypatch.setattr(module, "audit_finished", audited)
    assert entry.run_pipeline(config, config_dir=directory, until=until) is report
    assert len(looked) == called
    assert dump_config(config)
