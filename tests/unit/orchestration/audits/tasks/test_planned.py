"""Fields that name no groups are refused before anything is paid for, and a plan says what audits follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_pipeline_builders import TaskPlace, task_place

from configs import DataError
from orchestration.audits.tasks.planned import planned_task_audits, require_groups


def test_a_field_that_names_no_groups_is_refused_with_its_key(tmp_path: Path) -> None:
    require_groups(_with(tmp_path, run="bias", groups=["label"]).run.config)
    require_groups(_with(tmp_path).run.config)
    with pytest.raises(
        DataError, match=r"audit.groups.1: no test row says age: name one of their fields \(text, label"
    ):
        require_groups(_with(tmp_path, run="bias", groups=["label", "age"]).run.config)


def test_a_plan_says_what_follows(tmp_path: Path) -> None:
    assert planned_task_audits(_with(tmp_path).config) == ()
    said = planned_task_audits(_with(tmp_path, run="all", rows=40, groups=["label"]).config)
    assert said[1:] == (
        "  privacy: up to 40 training rows and as many held-out rows are read by each of them",
        "  bias: the answers by label; up to 40 test texts about somebody of the other gender",
        "  refusals: does not apply to students that give labels, which the page will say",
    )


def _with(root: Path, **audit: object) -> TaskPlace:
    place = task_place(root)
    return TaskPlace(root, place.values | ({"audit": audit} if audit else {}))
