"""An audit is made once: the second time nothing is computed, and what changed since makes it anew."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError
from configs.audit import EVERY
from evaluation.side_effects.findings import Audit
from orchestration.audits.kinds import KINDS, AuditKind, audit_run, kinds_named
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.audits import audit_path
from orchestration.outputs.console import Console, ProgressSink


class Made:
    """An audit that counts how often it is made."""

    def __init__(self) -> None:
        self.times = 0
        self.digest = "ab" * 32

    @property
    def kind(self) -> AuditKind:
        return AuditKind("privacy", "a question", self.rests_on, self.make)

    def rests_on(self, run: Any, settings: AuditSettings) -> dict[str, str]:
        return {"model": self.digest}

    def make(self, run: Any, settings: AuditSettings, progress: ProgressSink) -> Audit:
        self.times += 1
        return Audit("privacy", self.rests_on(run, settings), (), (f"made {self.times}",))


class Place:
    """Stands for a run of which only the directory is read."""

    students = ()

    def __init__(self, directory: Path) -> None:
        self.directory = directory


def test_what_was_found_of_the_same_run_is_not_computed_again(tmp_path: Path) -> None:
    made, stream = Made(), io.StringIO()
    run: Any = Place(tmp_path)
    told: dict[str, Any] = {"settings": AuditSettings(), "console": Console(stream)}
    first = audit_run(run, made.kind, **told)
    assert audit_run(run, made.kind, **told) == first and made.times == 1
    made.digest = "cd" * 32
    assert audit_run(run, made.kind, **told).notes == ("made 2",)
    assert "the audit is made anew" in stream.getvalue()
    assert audit_run(run, made.kind, **told).notes == ("made 2",)


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    made, stream = Made(), io.StringIO()
    run: Any = Place(tmp_path)
    told: dict[str, Any] = {"settings": AuditSettings(), "console": Console(stream)}
    audit_run(run, made.kind, **told)
    audit_path(tmp_path, "privacy").write_text("{")
    assert audit_run(run, made.kind, **told).notes == ("made 2",)


def test_audits_are_named_and_an_unknown_name_lists_them() -> None:
    assert [[kind.name for kind in kinds_named(name)] for name in ("privacy", "bias", "refusals")] == [
        ["privacy"],
        ["bias"],
        ["refusals"],
    ]
    assert tuple(kinds_named(EVERY)) == KINDS
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    with pytest.raises(ConfigError, match=r"there is no audit privcy: choose privacy \(what of its training rows"):
        kinds_named("privcy")


def test_every_audit_is_of_its_own_name() -> None:
    assert all(replace(kind, name=kind.name) == kind and kind.asks for kind in KINDS)
