"""What the configuration of a run says of its audits is what these are told."""

from __future__ import annotations

from configs.audit import AskedAudits, TaskAudits
from orchestration.audits.settings import AuditSettings


def test_settings_are_those_of_the_configuration() -> None:
    assert AuditSettings.of(None, device="gpu") == AuditSettings("gpu")
    asked = AskedAudits.model_validate({"run": "all", "rows": 7})
    assert AuditSettings.of(asked, device="cpu") == AuditSettings("cpu", 7)
    of_task = TaskAudits.model_validate({"run": ["bias"], "groups": ("gender",)})
    assert AuditSettings.of(of_task, device="cpu").groups == ("gender",)
