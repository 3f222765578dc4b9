"""docs/add-an-objective.md, followed through its test and its YAML; tests/slow/test_pages.py runs the whole."""

from __future__ import annotations

from pathlib import Path

from pages import Command, copy_of_the_code, follow, run_in_shell

LOAD = (
    "python -c 'from pathlib import Path; from configs import load_config; "
    'stage = load_config(Path("jeffreys.yaml")).students["both"].stages[0]; print(stage.method.card(stage))\''
)
OF_A_TASK = (
    "python -c 'from configs.task_stages import TaskStageConfig; "
    'stage = TaskStageConfig(objective="variation", steps=1); print(stage.needs, stage.method.card(stage))\''
)


def test_the_page_leads_to_objectives_that_their_tests_and_a_configuration_take(tmp_path: Path) -> None:
    place = copy_of_the_code(tmp_path / "code")

    def try_out(command: Command) -> str | None:
        return run_in_shell(command, place=place) if command.line.startswith("python -m pytest") else None

    assert len(follow("add-an-objective.md", place=place, run=try_out)) == 2
    assert run_in_shell(Command(LOAD, ()), place=place) == "`jeffreys`, forward and reverse KL, on teacher answers\n"
    said = "logits `variation`, total variation from the teacher at temperature 1\n"
    assert run_in_shell(Command(OF_A_TASK, ()), place=place) == said
