"""docs/add-a-task.md, followed up to its plan; tests/slow/test_pages.py runs the whole."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from pages import Command, follow

from orchestration.commands.main import main


def test_the_page_leads_to_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def plan(command: Command) -> str | None:
        program, *arguments = shlex.split(command.line)
        if (program, arguments[0]) != ("distill", "plan"):
            return None
        assert main(arguments) == 0
        return capsys.readouterr().out

    assert len(follow("add-a-task.md", place=tmp_path, run=plan)) == 1
