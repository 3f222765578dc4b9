"""docs/add-an-objective.md, followed through its test up to its plan; tests/slow/test_pages.py runs the whole."""

from __future__ import annotations

from pathlib import Path

from pages import Command, copy_of_the_code, follow, run_in_shell


def test_the_page_leads_to_an_objective_that_is_tested_and_planned(tmp_path: Path) -> None:
    place = copy_of_the_code(tmp_path / "code")

    def try_out(command: Command) -> str | None:
        known = command.line.startswith(("python -m pytest", "python -m orchestration plan"))
        return run_in_shell(command, place=place) if known else None

    assert len(follow("add-an-objective.md", place=place, run=try_out)) == 2
