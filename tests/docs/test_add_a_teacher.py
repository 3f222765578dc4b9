"""docs/add-a-teacher.md, followed up to its plan and through its class; tests/slow/test_pages.py runs the whole."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from pages import Command, copy_of_the_code, follow, run_in_shell, small_model

from orchestration.commands.main import main


def test_the_page_leads_to_a_plan_and_to_a_teacher_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copy_of_the_code(tmp_path / "code")
    small_model(place / "my-teacher")
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "160")

    def try_out(command: Command) -> str | None:
        program, *arguments = shlex.split(command.line)
        if (program, arguments[0]) == ("distill", "plan"):
            assert main(arguments) == 0
            return capsys.readouterr().out
        return run_in_shell(command, place=place) if program == "python" else None

    assert len(follow("add-a-teacher.md", place=place, run=try_out)) == 2
