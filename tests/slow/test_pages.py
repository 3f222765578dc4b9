"""The pages of docs/ that say how something is added, followed to the end with real engines and real training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from pages import commands, copy_of_the_code, follow, run_in_shell, small_model, steps

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("page", ["add-a-task.md", "add-a-teacher.md", "add-an-objective.md"])
def test_every_step_of_a_page(tmp_path: Path, page: str) -> None:
    place = copy_of_the_code(tmp_path / "code")
    small_model(place / "my-teacher")
    wanted = [command.line for step in steps(page) if step.path is None for command in commands(step.text)]
    assert follow(page, place=place, run=partial(run_in_shell, place=place)) == wanted
