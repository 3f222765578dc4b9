"""The registry, and what an objective says about itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.objectives import LOSS_SETTINGS, NEEDS, OBJECTIVES, find_objective, names_where
from configs.stages import StageConfig

ROOT = Path(__file__).parents[3]
NAMES = ["sft", "seqkd", "kd", "uld", "span_likelihood", "minillm"]


def test_every_name_leads_to_the_value_of_that_name() -> None:
    assert [find_objective(name).name for name in OBJECTIVES] == NAMES
    with pytest.raises(ConfigError, match=f"objective=dpo is unknown: choose one of {', '.join(NAMES)}"):
        find_objective("dpo")


def test_what_each_declares_is_about_settings_that_a_stage_has() -> None:
    for name in OBJECTIVES:
        assert find_objective(name).settings <= set(LOSS_SETTINGS)
    assert set(LOSS_SETTINGS) <= set(StageConfig.model_fields)


def test_names_are_a_choice_for_people() -> None:
    assert names_where(lambda each: each.needs_logprobs) == "kd or uld or span_likelihood or minillm"
    assert names_where(lambda each: each.across) == "sft or seqkd or uld or span_likelihood"
    assert names_where(lambda each: each.weighs_samples) == "minillm"
    assert names_where(lambda each: each.on_policy == "always") == "minillm"
    assert names_where(lambda each: each.source == "gold") == "sft"


def test_a_stage_is_checked_without_anything_heavy() -> None:
    code = (
        "import sys; from configs.stages import StageConfig\n"
        "stage = StageConfig(objective='kd', steps=1, divergence={'kind': 'jsd'}); card = stage.method.card(stage)\n"
        "from configs.objectives import OBJECTIVES, find_objective; [find_objective(name) for name in OBJECTIVES]\n"
        "print(card, [name for name in ('torch', 'numpy', 'zarr', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    said = "`kd`, jsd with beta 0.5, tail bucket, temperature 1.0, ce_weight 0.0, on teacher answers []"
    assert done.stdout.strip() == said


def test_the_table_of_the_docs_says_what_the_values_say() -> None:
    text = (ROOT / "docs/objectives.md").read_text(encoding="utf-8")
    table = text.partition("| objective | learns | needs of the teacher |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [name for name, _, _ in rows] == [f"`{name}`" for name in NAMES]
    for name, learns, needs in rows:
        value = find_objective(name.strip("`"))
        assert learns == value.learns
        assert needs.startswith(NEEDS[value.needs])
