from __future__ import annotations

import json

import pytest

from configs.methods import METHODS
from orchestration.commands.main import main


def test_the_table_names_every_method_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(each.name in printed and each.paper.split()[0] in printed for each in METHODS)
    assert "configs/recipes/METHOD.yaml" in printed


def test_as_json_it_says_what_is_kept_and_which_experiment_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["pkd"]["kept"] == ["its logits of a text", "its states at one place of a text"]
    assert rows["pkd"]["live"] == []
    assert rows["minillm"]["live"] == ["its log-probabilities of what the student writes"]
    assert rows["pkd"]["recipe"].endswith("configs/recipes/pkd.yaml")
