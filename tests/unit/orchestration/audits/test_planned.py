"""What a plan says of the audits that follow, and what it refuses of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import SHAPE, experiment

from configs import DataError
from configs.audit import AskedAudits
from configs.models import Device
from orchestration.audits.planned import planned_audits, require_audits
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.hardware import Hardware

TEACHER = PlannedShape("teacher", SHAPE, assumed=False)


def planned(root: Path, *, accelerator: Device = "cpu", **audit: Any) -> tuple[str, ...]:
    return planned_audits(experiment(root, audit=audit), teacher=TEACHER, hardware=Hardware(accelerator, cpus=2))


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_a_plan_names_the_audits_that_follow_what_they_ask_and_how_long(tmp_path: Path, accelerator: Device) -> None:
    head, *lines = planned(tmp_path, accelerator=accelerator, run="all", rows=64)
    assert head.startswith("Audits follow the comparison, of 1 students beside their teacher") and "in about" in head
    assert [line.split(":")[0].strip() for line in lines] == ["privacy", "bias", "refusals"]
    assert "up to 64 training rows" in lines[0] and "42 pairs" in lines[1] and "80 requests" in lines[2]


def test_more_pairs_are_counted(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("kind,stereotyped,other\nage,a,b\n")
    (line,) = planned(tmp_path, run=["bias"], pairs=[str(tmp_path / "more.csv")])[1:]
    assert "43 pairs" in line


def test_nothing_is_said_where_no_audit_follows(tmp_path: Path) -> None:
    assert planned(tmp_path, canaries={}) == ()


def test_pairs_that_cannot_be_used_are_refused_beforehand(tmp_path: Path) -> None:
    require_audits(None)
    (tmp_path / "empty.csv").write_text("kind,stereotyped,other\n")
    with pytest.raises(
        DataError, match=r"^audit\.pairs\.0: .*empty\.csv holds no pair of sentences: name another file"
    ):
        require_audits(AskedAudits(run=("bias",), pairs=(tmp_path / "empty.csv",)))
