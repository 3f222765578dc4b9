"""The same result as tables or as JSON; progress and what was left out never among the JSON."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestration.commands.results import LeftOut, print_result, progress_console, show_each
from orchestration.outputs.console import Console


@dataclass(frozen=True)
class Found:
    name: str
    place: Path


FOUND = [Found("a", Path("x")), Found("b", Path("y"))]


def show(console: Console) -> None:
    show_each(lambda item, console: console.say(f"<{item.name}>"), FOUND, console)


def test_without_json_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(argparse.Namespace(json=False), FOUND, show)
    assert capsys.readouterr().out == "<a>\n<b>\n"


def test_json_is_plain_to_its_depth(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(argparse.Namespace(json=True), {"collected": FOUND, "quota": None}, show)
    assert json.loads(capsys.readouterr().out) == {
        "collected": [{"name": "a", "place": "x"}, {"name": "b", "place": "y"}],
        "quota": None,
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_progress_is_not_among_the_json(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    progress_console(argparse.Namespace(json=as_json)).say("half way")
    printed = capsys.readouterr()
    assert (printed.err if as_json else printed.out) == "half way\n"


def test_what_is_left_out_is_named_and_changes_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = LeftOut()
    assert left_out.code == 0
    left_out("identity.json: \x1b[31mnot JSON")
    assert left_out.code == 1
    error = capsys.readouterr().err
    assert "left out: identity.json" in error and "\x1b" not in error
